-- Who loads a table now: one row a table, kept for ever because its epoch must never go back.
CREATE TABLE leases (
  workstream TEXT NOT NULL,
  layer TEXT NOT NULL,
  name TEXT NOT NULL,
  epoch BIGINT NOT NULL,
  held BOOLEAN NOT NULL,
  token TEXT,
  host TEXT,
  boot TEXT,
  pid BIGINT,
  process_started TEXT,
  run_id TEXT,
  acquired_at TIMESTAMP,
  renewed_at TIMESTAMP,
  expires_at TIMESTAMP,
  PRIMARY KEY (workstream, layer, name)
);

-- What every load did; a load's batch id is the epoch of its lease.
CREATE TABLE loads (
  workstream TEXT NOT NULL,
  layer TEXT NOT NULL,
  name TEXT NOT NULL,
  batch_id BIGINT NOT NULL,
  mode TEXT NOT NULL,
  status TEXT NOT NULL,
  run_id TEXT,
  host TEXT NOT NULL,
  pid BIGINT NOT NULL,
  taken_over BOOLEAN NOT NULL,
  started_at TIMESTAMP NOT NULL,
  finished_at TIMESTAMP,
  error TEXT,
  rows_read BIGINT,
  inserted BIGINT,
  updated BIGINT,
  deleted BIGINT,
  unchanged BIGINT,
  late BIGINT,
  quarantined BIGINT,
  bytes_landed BIGINT,
  bytes_written BIGINT,
  watermark_from TEXT,
  watermark_to TEXT,
  version BIGINT,
  committed BOOLEAN,
  stopped_deletes BIGINT,
  stopped_current BIGINT,
  seconds JSON,
  more JSON,
  PRIMARY KEY (workstream, layer, name, batch_id)
);

CREATE INDEX loads_by_start ON loads (started_at);

-- Whom a take-over marks as crashed; the log grows, these stay few.
CREATE INDEX loads_running ON loads (workstream, layer, name) WHERE status = 'running';

-- A person's word that one stopped load may pass, once.
CREATE TABLE approvals (
  workstream TEXT NOT NULL,
  layer TEXT NOT NULL,
  name TEXT NOT NULL,
  batch_id BIGINT NOT NULL,
  approved_by TEXT NOT NULL,
  why TEXT NOT NULL,
  approved_at TIMESTAMP NOT NULL,
  used_by BIGINT,
  used_at TIMESTAMP,
  PRIMARY KEY (workstream, layer, name, batch_id)
);
