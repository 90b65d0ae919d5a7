"""The tables of queue.db, and the texts that read and write them."""

VERSION = 2

# Content stands apart from the small rows about it, so that those stay dense when it goes.
# WAITING recipients alone have next_attempt_at, so the index holds just what may become due.
TABLES = """
CREATE TABLE message (
    queue_id INTEGER PRIMARY KEY,
    accepted_at REAL NOT NULL,
    finished_at REAL,
    reverse_path TEXT,
    body TEXT,
    smtputf8 INTEGER NOT NULL,
    envid TEXT,
    ret TEXT,
    protocol TEXT NOT NULL,
    client_ip TEXT,
    local_ip TEXT,
    helo TEXT NOT NULL,
    listener TEXT NOT NULL,
    trusted INTEGER NOT NULL,
    reports_allowed INTEGER NOT NULL,
    is_eight_bit INTEGER NOT NULL,
    size INTEGER NOT NULL,
    content_name TEXT,
    prepend BLOB NOT NULL,
    login TEXT,
    tls TEXT,
    requiretls INTEGER NOT NULL DEFAULT 0,
    auth_results TEXT NOT NULL DEFAULT ''
);
CREATE INDEX message_by_client ON message (client_ip);
CREATE TABLE content (
    queue_id INTEGER PRIMARY KEY,
    octets BLOB NOT NULL
);
CREATE TABLE recipient (
    queue_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    forward_path TEXT NOT NULL,
    original_recipient TEXT,
    notify INTEGER,
    target TEXT NOT NULL,
    rule TEXT NOT NULL,
    status INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at REAL,
    warned INTEGER NOT NULL,
    last_reply TEXT,
    last_hop TEXT,
    outcome TEXT,
    finished_at REAL,
    PRIMARY KEY (queue_id, number)
) WITHOUT ROWID;
CREATE INDEX recipient_due ON recipient (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE TABLE attempt (
    queue_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    outcome TEXT NOT NULL,
    reply TEXT,
    hop TEXT
);
CREATE INDEX attempt_by_message ON attempt (queue_id, number);
CREATE TABLE refusal (
    at REAL NOT NULL,
    client_ip TEXT,
    listener TEXT NOT NULL,
    helo TEXT NOT NULL,
    reverse_path TEXT NOT NULL,
    forward_path TEXT NOT NULL,
    reply TEXT NOT NULL
);
CREATE INDEX refusal_by_client ON refusal (client_ip);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

# What a database of an earlier version lacks, by that version.
UPGRADES = {
    1: """
ALTER TABLE message ADD COLUMN login TEXT;
ALTER TABLE message ADD COLUMN tls TEXT;
ALTER TABLE message ADD COLUMN requiretls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN auth_results TEXT NOT NULL DEFAULT '';
""",
}

INSERT_MESSAGE = f"INTO message VALUES ({','.join('?' * 23)})"
INSERT_CONTENT = "INTO content VALUES (?, ?)"
INSERT_RECIPIENT = "INTO recipient VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, 0, NULL, NULL, NULL, NULL)"
INSERT_ATTEMPT = "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?)"
RETRY_RECIPIENT = (
    "UPDATE recipient SET status = ?, attempts = attempts + ?, next_attempt_at = ?, warned = ?,"
    " last_reply = ?, last_hop = ? WHERE queue_id = ? AND number = ?"
)
FINISH_RECIPIENT = (
    "UPDATE recipient SET status = 3, attempts = attempts + ?, next_attempt_at = NULL,"
    " last_reply = coalesce(?, last_reply), last_hop = coalesce(?, last_hop), outcome = ?,"
    " finished_at = ? WHERE queue_id = ? AND number = ?"
)
# Finished with its last recipient; content goes then, the rows stay for the trace.
FINISH_MESSAGE = (
    "UPDATE message SET finished_at = ?1 WHERE queue_id = ?2 AND NOT EXISTS"
    " (SELECT 1 FROM recipient WHERE queue_id = ?2 AND status <> 3)"
)
DROP_CONTENT = (
    "DELETE FROM content WHERE queue_id = ?1 AND EXISTS"
    " (SELECT 1 FROM message WHERE queue_id = ?1 AND finished_at IS NOT NULL)"
)
_RECIPIENT_FIELDS = (
    "queue_id, number, forward_path, original_recipient, notify, target, rule, status, attempts,"
    " next_attempt_at, warned, last_reply, last_hop, outcome, finished_at"
)
SELECT_MESSAGE = (
    "SELECT message.queue_id, accepted_at, finished_at, reverse_path, body, smtputf8, envid, ret,"
    " protocol, client_ip, local_ip, helo, listener, trusted, reports_allowed, is_eight_bit, size,"
    " content_name, prepend, login, tls, requiretls, auth_results"
)
SELECT_RECIPIENT = f"SELECT {_RECIPIENT_FIELDS} FROM recipient"
