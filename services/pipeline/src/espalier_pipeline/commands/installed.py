"""What is installed and kept: plugins, store, doctor."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from espalier_pipeline.commands.printing import (
    Context,
    Home,
    Json,
    Namespace,
    StoreUri,
    print_json,
    print_next,
    shown,
)
from espalier_pipeline.counting import counted

plugins = typer.Typer(help="List, show, make and check plugins.", no_args_is_help=True)
store = typer.Typer(help="Verify and sweep the store.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(plugins, name="plugins")
    app.add_typer(store, name="store")
    app.command()(doctor)


@plugins.command("list")
def plugins_list(
    group: Annotated[str | None, typer.Argument(help="One group, such as espalier.peft_methods.")] = None,
    as_json: Json = False,
) -> None:
    """List installed plugins without importing any."""
    from espalier_runtime.plugins import Plugins, allowed
    from espalier_sdk.errors import SpecError
    from espalier_sdk.groups import GROUPS

    from espalier_pipeline.tables import columns

    if group is not None and group not in GROUPS:
        raise SpecError(f"there is no group {group!r}", given=group, accepted=", ".join(GROUPS))
    found = Plugins().inventory(group)
    if as_json:
        keys = ("group", "name", "distribution", "version", "module", "attribute")
        print_json([{key: getattr(one, key) for key in keys} for one in found])
        return
    rows = [["group", "name", "distribution", "version", ""]]
    for one in found:
        rows.append(
            [one.group, one.name, one.distribution, one.version, "" if allowed(one.distribution) else "not allowed"]
        )
    print(columns(rows))


@plugins.command("show")
def plugins_show(name: Annotated[str, typer.Argument(help="The plugin's name.")], as_json: Json = False) -> None:
    """Tell what a plugin does and which options it takes."""
    from espalier_pipeline.authoring import describe

    described = describe(name)
    if as_json:
        print_json(described)
        return
    for one in described:
        print(f"{one['name']}  {one['group']}  {one['distribution']} {one['version']}\n  {one['summary']}")
        for option in one["options"]:
            print(f"  {option['name']:<20} {option['type']:<28} {option['default']:<12} {option['description']}")


@plugins.command("new")
def plugins_new(
    name: Annotated[str, typer.Argument(help="The plugin's name, such as shout.")],
    folder: Annotated[Path | None, typer.Option("--out", help="Where to write it; default: espalier-NAME.")] = None,
    as_json: Json = False,
) -> None:
    """Write a plugin distribution that builds and passes its kit."""
    from espalier_pipeline.authoring import installing, new_plugin

    made = new_plugin(name, folder)
    print_json({"made": str(made)}) if as_json else print(shown(made))
    print_next(f"{shlex.join(installing(made))} && {shlex.join([sys.executable, '-m', 'pytest', shown(made)])}")


@plugins.command("check")
def plugins_check(
    name: Annotated[str | None, typer.Argument(help="One plugin; default: all.")] = None, as_json: Json = False
) -> int:
    """Load plugins and check each against its protocol."""
    from espalier_pipeline.authoring import check_plugins

    checked = check_plugins(name)
    if as_json:
        print_json(checked)
    else:
        for one in checked:
            print(
                f"{'ok    ' if not one['problem'] else 'BROKEN'} {one['group']} {one['name']}  {one['problem'] or ''}"
            )
    return 3 if any(one["problem"] for one in checked) else 0


@store.command("verify")
def store_verify(
    remove_damaged: Annotated[bool, typer.Option("--remove-damaged", help="So that a run makes them again.")] = False,
    home: Home = None,
    uri: StoreUri = None,
    as_json: Json = False,
) -> int:
    """Hash every artifact again."""
    from espalier_pipeline.keeping import verify

    checked = verify(home=home, store=uri, remove_damaged=remove_damaged)
    if as_json:
        print_json(checked)
    else:
        for one in checked:
            if one["problem"]:
                print(f"damaged  {one['ref']}  {one['problem']}{'; removed' if one['removed'] else ''}")
        print(f"{counted(len(checked), 'artifact')}, {sum(bool(one['problem']) for one in checked)} damaged")
    return 4 if any(one["problem"] and not one["removed"] for one in checked) else 0


@store.command("gc")
def store_gc(
    older_than: Annotated[float, typer.Option("--older-than", help="Minutes since the last heartbeat.")] = 60,
    unused: Annotated[bool, typer.Option("--unused", help="Also artifacts that no run and no endpoint names.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    home: Home = None,
    uri: StoreUri = None,
    as_json: Json = False,
) -> None:
    """Sweep what unfinished attempts left behind."""
    from espalier_pipeline.keeping import collect

    swept = collect(home=home, store=uri, older_than_minutes=older_than, unused=unused, dry_run=dry_run)
    if as_json:
        print_json(swept)
        return
    word = "would free" if dry_run else "freed"
    gone = f"{counted(len(swept['attempts']), 'attempt')}, {counted(len(swept['artifacts']), 'artifact')}"
    print(f"{gone}, {word} {swept['bytes'] / 1e6:.1f} MB")


def doctor(home: Home = None, namespace: Namespace = None, context: Context = None, as_json: Json = False) -> int:
    """Look at this machine, or with -n at a namespace, and say what would not work, each line with its remedy."""
    if namespace is not None:
        from espalier_pipeline.cluster.examining import examine as examine_namespace

        findings = examine_namespace(namespace, context=context)
    else:
        from espalier_pipeline.doctor import examine

        findings = examine(home)
    if as_json:
        print_json(findings)
    else:
        for one in findings:
            remedy = f"; {one['remedy']}" if one["remedy"] else ""
            print(f"{'ok  ' if one['ok'] else 'FAIL'} {one['name']:<12} {one['found']}{remedy}")
        print(counted(sum(not one["ok"] for one in findings), "problem"), file=sys.stderr)
    return 0 if all(one["ok"] for one in findings) else 5
