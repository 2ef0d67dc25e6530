-- Times are UTC, ISO 8601 with microseconds and offset, so that they sort as text.
-- Existing readers create indexes IF NOT EXISTS. They find the names taken, write nothing, and their connection may be read-only.
-- Nobody queries by those that end in WHERE 0: they hold no row, and a commit has no page of them to write.

CREATE TABLE schema_version (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at TEXT NOT NULL
);

-- One row: this life of the store.
CREATE TABLE store_meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    config_epoch TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_at TEXT NOT NULL
);

-- config_json: what the owner set, without defaults and without secrets. checksum: of the configuration on the wire.
CREATE TABLE service_configs (
    service TEXT PRIMARY KEY,
    config_json TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    config_epoch TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    checksum TEXT NOT NULL,
    request_id TEXT NOT NULL
);
CREATE INDEX idx_service_configs_epoch ON service_configs (config_epoch);

-- What the broker has acknowledged. Losing a row means publishing once more.
CREATE TABLE publications (
    service TEXT PRIMARY KEY,
    config_epoch TEXT NOT NULL,
    version INTEGER NOT NULL,
    acknowledged_at TEXT NOT NULL
) WITHOUT ROWID;

-- Derived from the configurations, for search. A secret's value_json is a mark or null.
CREATE TABLE config_items (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    key TEXT NOT NULL,
    value_json TEXT NOT NULL,
    type TEXT NOT NULL,
    complexity TEXT NOT NULL,
    description TEXT NOT NULL,
    help_text TEXT,
    examples TEXT,
    is_secret INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    updated_by TEXT NOT NULL,
    UNIQUE (service, key)
);
CREATE INDEX idx_config_items_service ON config_items (service) WHERE 0;
CREATE INDEX idx_config_items_complexity ON config_items (complexity) WHERE 0;
CREATE INDEX idx_config_items_key ON config_items (key) WHERE 0;
CREATE INDEX idx_config_items_search ON config_items (service, key, description) WHERE 0;

-- A value that is NULL, unlike JSON's null, was not set. A secret's values are marks or NULL.
CREATE TABLE config_history (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    key TEXT NOT NULL,
    old_value_json TEXT,
    new_value_json TEXT,
    is_secret INTEGER NOT NULL,
    version INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    changed_at TEXT NOT NULL,
    changed_by TEXT NOT NULL,
    change_reason TEXT
);
CREATE INDEX idx_config_history_service ON config_history (service);
CREATE INDEX idx_config_history_time ON config_history (changed_at) WHERE 0;

CREATE TABLE config_profiles (
    profile_name TEXT PRIMARY KEY,
    description TEXT,
    config_snapshot_json TEXT NOT NULL,
    created_at TEXT NOT NULL,
    created_by TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    updated_by TEXT NOT NULL
);
CREATE INDEX idx_config_profiles_created ON config_profiles (created_at);

CREATE TABLE encrypted_secrets (
    service TEXT NOT NULL,
    key TEXT NOT NULL,
    ciphertext BLOB NOT NULL,
    nonce BLOB NOT NULL,
    key_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (service, key)
);
CREATE INDEX idx_encrypted_secrets_key_id ON encrypted_secrets (key_id);

-- One row for each commit (revision and detail are set then), and one for each other access worth telling.
CREATE TABLE access_log (
    id INTEGER PRIMARY KEY,
    timestamp TEXT NOT NULL,
    user_id TEXT,
    action TEXT NOT NULL,
    origin TEXT,
    service TEXT,
    key TEXT,
    success INTEGER NOT NULL,
    reason TEXT,
    request_id TEXT,
    address TEXT,
    revision INTEGER,
    detail TEXT
);
CREATE INDEX idx_access_log_time ON access_log (timestamp) WHERE 0;
CREATE INDEX idx_access_log_user ON access_log (user_id) WHERE 0;

CREATE TRIGGER access_log_keeps_rows BEFORE DELETE ON access_log
BEGIN
    SELECT RAISE(ABORT, 'access_log is append-only');
END;
CREATE TRIGGER access_log_keeps_values BEFORE UPDATE ON access_log
BEGIN
    SELECT RAISE(ABORT, 'access_log is append-only');
END;
