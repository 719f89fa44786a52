BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	actor VARCHAR(255) NOT NULL, 
	action VARCHAR(255) NOT NULL, 
	subject VARCHAR(255) NOT NULL, 
	old JSON, 
	new JSON, 
	PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,'2026-11-26 04:14:36.142815','pipeline','endpoint.create','mails',NULL,'{"task": "classification", "limits": {"max_body_bytes": 1048576, "max_items": 256, "timeout_seconds": 30.0, "max_concurrency": 64}}');
INSERT INTO "audit" VALUES(2,'2026-11-26 04:14:36.216022','pipeline','variant.propose','mails/tiny',NULL,'{"id": "7b783c3f0f4a", "name": "tiny", "model": "model/tiny@9b773c2b988b4165804f3f7bb2abefa516385d10a1e40dc5df916da90933af7e", "engine": {"name": "transformers", "config": {}}, "config": {"num_replicas": 1, "num_cpus": 0.5, "num_gpus": 0, "threads": null, "max_batch_requests": 16, "max_ongoing": 256}, "state": "proposed", "error": null}');
INSERT INTO "audit" VALUES(3,'2026-11-26 04:14:36.217848','pipeline','endpoint.champion','mails','{"champion": null}','{"champion": "7b783c3f0f4a"}');
CREATE TABLE completions (
	request_id VARCHAR(255) NOT NULL, 
	served VARCHAR(255), 
	status INTEGER NOT NULL, 
	ttft_ms DOUBLE, 
	total_ms DOUBLE NOT NULL, 
	tokens_in INTEGER, 
	tokens_out INTEGER, 
	finish VARCHAR(32) NOT NULL, 
	prediction JSON, 
	score DOUBLE, 
	PRIMARY KEY (request_id)
);
CREATE TABLE endpoints (
	name VARCHAR(255) NOT NULL, 
	task VARCHAR(255) NOT NULL, 
	champion VARCHAR(255), 
	revision INTEGER NOT NULL, 
	limits JSON NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "endpoints" VALUES('mails','classification','7b783c3f0f4a',3,'{"max_body_bytes": 1048576, "max_items": 256, "timeout_seconds": 30.0, "max_concurrency": 64}');
CREATE TABLE experiments (
	id VARCHAR(255) NOT NULL, 
	endpoint VARCHAR(255) NOT NULL, 
	salt VARCHAR(255) NOT NULL, 
	unit VARCHAR(16) NOT NULL, 
	control VARCHAR(255) NOT NULL, 
	treatment VARCHAR(255) NOT NULL, 
	weights JSON NOT NULL, 
	coverage DOUBLE NOT NULL, 
	rule JSON NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	verdict TEXT, 
	PRIMARY KEY (id), 
	CONSTRAINT fk_experiments_control FOREIGN KEY(control) REFERENCES variants (id), 
	CONSTRAINT fk_experiments_endpoint FOREIGN KEY(endpoint) REFERENCES endpoints (name), 
	CONSTRAINT fk_experiments_treatment FOREIGN KEY(treatment) REFERENCES variants (id)
);
CREATE TABLE exposures (
	request_id VARCHAR(255) NOT NULL, 
	at DATETIME NOT NULL, 
	endpoint VARCHAR(255) NOT NULL, 
	revision INTEGER NOT NULL, 
	experiment VARCHAR(255), 
	unit_hash VARCHAR(255), 
	assigned VARCHAR(255) NOT NULL, 
	reason VARCHAR(16) NOT NULL, 
	key_id VARCHAR(255) NOT NULL, 
	PRIMARY KEY (request_id)
);
CREATE TABLE keys (
	id VARCHAR(255) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	roles JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	revoked_at DATETIME, 
	PRIMARY KEY (id)
);
CREATE TABLE leases (
	name VARCHAR(255) NOT NULL, 
	holder VARCHAR(255) NOT NULL, 
	fence INTEGER NOT NULL, 
	expires_at DATETIME NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE looks (
	experiment VARCHAR(255) NOT NULL, 
	tick INTEGER NOT NULL, 
	counts JSON NOT NULL, 
	effect DOUBLE, 
	lower DOUBLE, 
	upper DOUBLE, 
	p_min DOUBLE, 
	srm_p_min DOUBLE, 
	guardrails JSON NOT NULL, 
	decision VARCHAR(255) NOT NULL, 
	PRIMARY KEY (experiment, tick), 
	CONSTRAINT fk_looks_experiment FOREIGN KEY(experiment) REFERENCES experiments (id)
);
CREATE TABLE outcomes (
	id VARCHAR(255) NOT NULL, 
	experiment VARCHAR(255), 
	unit_hash VARCHAR(255), 
	request_id VARCHAR(255), 
	metric VARCHAR(255) NOT NULL, 
	value FLOAT NOT NULL, 
	observed_at DATETIME NOT NULL, 
	received_at DATETIME NOT NULL, 
	late BOOLEAN NOT NULL, 
	key_id VARCHAR(255) NOT NULL, 
	idem_key VARCHAR(255), 
	supersedes VARCHAR(255), 
	PRIMARY KEY (id), 
	CONSTRAINT uq_outcomes_key_id_idem_key UNIQUE (key_id, idem_key)
);
CREATE TABLE revisions (
	endpoint VARCHAR(255) NOT NULL, 
	revision INTEGER NOT NULL, 
	routing JSON NOT NULL, 
	active_at DATETIME NOT NULL, 
	author VARCHAR(255) NOT NULL, 
	reason TEXT NOT NULL, 
	PRIMARY KEY (endpoint, revision), 
	CONSTRAINT fk_revisions_endpoint FOREIGN KEY(endpoint) REFERENCES endpoints (name)
);
INSERT INTO "revisions" VALUES('mails',1,'{"task": "classification", "champion": null, "variants": {}, "limits": {"max_body_bytes": 1048576, "max_items": 256, "timeout_seconds": 30.0, "max_concurrency": 64}, "experiment": null}','2026-11-26 04:14:39.209776','pipeline','created');
INSERT INTO "revisions" VALUES('mails',2,'{"task": "classification", "champion": null, "variants": {"tiny": "7b783c3f0f4a"}, "limits": {"max_body_bytes": 1048576, "max_items": 256, "timeout_seconds": 30.0, "max_concurrency": 64}, "experiment": null}','2026-11-26 04:14:39.217299','pipeline','variant tiny proposed');
INSERT INTO "revisions" VALUES('mails',3,'{"task": "classification", "champion": "7b783c3f0f4a", "variants": {"tiny": "7b783c3f0f4a"}, "limits": {"max_body_bytes": 1048576, "max_items": 256, "timeout_seconds": 30.0, "max_concurrency": 64}, "experiment": null}','2026-11-26 04:14:39.219918','pipeline','champion: tiny');
CREATE TABLE secrets (
	name VARCHAR(255) NOT NULL, 
	value VARCHAR(255) NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "secrets" VALUES('unit_key','0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE units (
	experiment VARCHAR(255) NOT NULL, 
	unit_hash VARCHAR(255) NOT NULL, 
	arm VARCHAR(255) NOT NULL, 
	first_request VARCHAR(255) NOT NULL, 
	first_at DATETIME NOT NULL, 
	closes_at DATETIME NOT NULL, 
	crossed BOOLEAN NOT NULL, 
	PRIMARY KEY (experiment, unit_hash)
);
CREATE TABLE variants (
	id VARCHAR(255) NOT NULL, 
	endpoint VARCHAR(255) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	model_digest VARCHAR(255) NOT NULL, 
	model_ref VARCHAR(255) NOT NULL, 
	engine JSON NOT NULL, 
	config JSON NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	error TEXT, 
	PRIMARY KEY (id), 
	CONSTRAINT fk_variants_endpoint FOREIGN KEY(endpoint) REFERENCES endpoints (name), 
	CONSTRAINT uq_variants_endpoint_name UNIQUE (endpoint, name)
);
INSERT INTO "variants" VALUES('7b783c3f0f4a','mails','tiny','9b773c2b988b4165804f3f7bb2abefa516385d10a1e40dc5df916da90933af7e','model/tiny@9b773c2b988b4165804f3f7bb2abefa516385d10a1e40dc5df916da90933af7e','{"name": "transformers", "config": {}}','{"num_replicas": 1, "num_cpus": 0.5, "num_gpus": 0, "threads": null, "max_batch_requests": 16, "max_ongoing": 256}','proposed',NULL);
CREATE INDEX ix_audit_subject ON audit (subject);
CREATE INDEX ix_exposures_at ON exposures (at);
CREATE INDEX ix_exposures_experiment_unit_hash ON exposures (experiment, unit_hash);
CREATE INDEX ix_outcomes_experiment_unit_hash ON outcomes (experiment, unit_hash);
CREATE INDEX ix_outcomes_request ON outcomes (request_id, metric, late, id);
CREATE INDEX ix_units_experiment_closes_at ON units (experiment, closes_at);
CREATE INDEX ix_experiments_endpoint ON experiments (endpoint);
CREATE UNIQUE INDEX uq_experiments_live ON experiments (endpoint) WHERE state IN ('running', 'paused');
COMMIT;
