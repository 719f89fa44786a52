"""The endpoint: serve, ask, feedback, experiment, keys. All but `serve` are clients of its HTTP routes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from espalier_pipeline.commands.printing import Home, Json, StoreUri, command_line, print_json, print_next

Endpoint = Annotated[str, typer.Argument(help="The endpoint's name.")]
experiments = typer.Typer(help="Start, watch and stop experiments.", no_args_is_help=True)
keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (serve, ask, feedback):
        app.command()(command)
    app.add_typer(experiments, name="experiment")
    app.add_typer(keys, name="keys")


def serve(
    spec: Annotated[
        Path | None, typer.Argument(help="The spec whose experiment is started; the proposals of all specs are served.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8000,
    home: Home = None,
    store: StoreUri = None,
    as_json: Json = False,
) -> int:
    """Serve all proposed variants in the foreground, and start the experiment of the given spec."""
    from espalier_pipeline.serving import serve as serve_endpoint

    return serve_endpoint(spec, host=host, port=port, home=home, store=store, as_json=as_json)


def ask(
    endpoint: Endpoint,
    text: Annotated[str, typer.Argument(help="What is asked; a JSON object gives several columns.")],
    unit: Annotated[str | None, typer.Option("--unit", help="Who asks; the same unit keeps its variant.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Ask an endpoint one question."""
    from espalier_pipeline.client import Client

    answer = Client.find(home).ask(endpoint, _input(text), unit=unit)
    if as_json:
        print_json(answer)
        return
    for one in answer["predictions"]:
        print(f"{one['label']}  {one['score']:.3f}")
    told = answer["headers"]
    print(f"{told['x-espalier-variant']}, {told['x-espalier-assignment']}, {answer['id']}", file=sys.stderr)
    print_next(command_line("feedback", endpoint, "FILE", home=home))


def _input(text: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def feedback(
    endpoint: Endpoint,
    file: Annotated[Path, typer.Argument(help="JSON lines: request_id (or unit + experiment), metric, value.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Send what came back about answers of an endpoint; those of another one are `unknown`."""
    from espalier_pipeline.client import Client

    counted = Client.find(home).feedback_file(endpoint, file)
    if as_json:
        print_json({"endpoint": endpoint, **counted})
        return
    print(", ".join(f"{number} {status}" for status, number in sorted(counted.items())) or "nothing to send")
    print_next(command_line("experiment", "status", endpoint, home=home))


@experiments.command("start")
def experiment_start(endpoint: Endpoint, home: Home = None, as_json: Json = False) -> None:
    """Start the draft experiment of an endpoint."""
    from espalier_pipeline.client import Client

    _print_experiment(Client.find(home).start_experiment(endpoint), as_json=as_json)
    print_next(command_line("experiment", "status", endpoint, home=home))


@experiments.command("status")
def experiment_status(endpoint: Endpoint, home: Home = None, as_json: Json = False) -> None:
    """Tell how the latest experiment of an endpoint stands."""
    from espalier_pipeline.client import Client
    from espalier_pipeline.tables import render_experiment

    client = Client.find(home)
    experiment = client.experiment(endpoint)
    results = client.results(str(experiment["id"]))
    if as_json:
        print_json({**experiment, "results": results})
        return
    _print_experiment(experiment, as_json=False)
    print(render_experiment(results))


@experiments.command("stop")
def experiment_stop(endpoint: Endpoint, home: Home = None, as_json: Json = False) -> None:
    """Stop the running experiment of an endpoint; its champion stays."""
    from espalier_pipeline.client import Client

    _print_experiment(Client.find(home).stop_experiment(endpoint), as_json=as_json)


def _print_experiment(experiment: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(experiment)
        return
    share = f"{experiment['weights'][0]}:{experiment['weights'][1]}, coverage {experiment['coverage']:g}"
    print(f"{experiment['id']}  {experiment['state']}  {share}, by {experiment['unit']}")


@keys.command("create")
def keys_create(
    roles: Annotated[list[str], typer.Option("--role", help="infer, feedback, operate or admin; may be repeated.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a key; it is shown this once."""
    from espalier_pipeline.client import Client

    made = Client.find(home).create_key(roles)
    print_json(made) if as_json else print(made["key"])


@keys.command("list")
def keys_list(home: Home = None, as_json: Json = False) -> None:
    """List keys without their secrets."""
    from espalier_pipeline.client import Client

    found = Client.find(home).keys()
    if as_json:
        print_json(found)
        return
    for key in found:
        print(f"{key['id']}  {','.join(key['roles'])}{'  revoked' if key.get('revoked_at') else ''}")


@keys.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id.")], home: Home = None, as_json: Json = False
) -> None:
    """Revoke a key."""
    from espalier_pipeline.client import Client

    Client.find(home).revoke_key(key_id)
    print_json({"id": key_id, "revoked": True}) if as_json else print(f"{key_id} revoked")
