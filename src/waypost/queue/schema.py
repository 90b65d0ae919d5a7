"""The tables of queue.db, and the texts that read and write them."""

VERSION = 1

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
    prepend BLOB NOT NULL
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

-- Doors to the tables: one statement a batch, whatever tables it touches. Each statement gives
-- the interpreter away and has to win it back from the event loop's thread, several times, and
-- that costs more than what the statement does (docs/decisions/0005).
CREATE VIEW new_message AS
    SELECT message.*, octets, number, forward_path, original_recipient, notify, target, rule,
        status, next_attempt_at
    FROM message JOIN content USING (queue_id) JOIN recipient USING (queue_id);
CREATE TRIGGER keep_message INSTEAD OF INSERT ON new_message BEGIN
    INSERT INTO message SELECT NEW.queue_id, NEW.accepted_at, NULL, NEW.reverse_path, NEW.body,
        NEW.smtputf8, NEW.envid, NEW.ret, NEW.protocol, NEW.client_ip, NEW.local_ip, NEW.helo,
        NEW.listener, NEW.trusted, NEW.reports_allowed, NEW.is_eight_bit, NEW.size,
        NEW.content_name, NEW.prepend
        WHERE NEW.number = 0;
    INSERT INTO content SELECT NEW.queue_id, NEW.octets WHERE NEW.octets IS NOT NULL;
    INSERT INTO recipient VALUES (NEW.queue_id, NEW.number, NEW.forward_path,
        NEW.original_recipient, NEW.notify, NEW.target, NEW.rule, NEW.status, 0,
        NEW.next_attempt_at, 0, NULL, NULL, NULL, NULL);
END;
CREATE VIEW new_outcome AS
    SELECT queue_id, number, attempts, last_reply, last_hop, outcome, finished_at FROM recipient;
CREATE TRIGGER finish_recipient INSTEAD OF INSERT ON new_outcome BEGIN
    UPDATE recipient SET status = 3, attempts = attempts + NEW.attempts, next_attempt_at = NULL,
        last_reply = coalesce(NEW.last_reply, last_reply),
        last_hop = coalesce(NEW.last_hop, last_hop),
        outcome = NEW.outcome, finished_at = NEW.finished_at
        WHERE queue_id = NEW.queue_id AND number = NEW.number;
    UPDATE message SET finished_at = NEW.finished_at
        WHERE queue_id = NEW.queue_id AND NOT EXISTS (
            SELECT 1 FROM recipient WHERE recipient.queue_id = NEW.queue_id AND status <> 3);
    DELETE FROM content
        WHERE queue_id = NEW.queue_id AND NOT EXISTS (
            SELECT 1 FROM recipient WHERE recipient.queue_id = NEW.queue_id AND status <> 3);
END;
"""

# Values of a row given to the two views above, and to a table.
NEW_MESSAGE_COLUMNS = 28
NEW_OUTCOME_COLUMNS = 7
ATTEMPT_COLUMNS = 6
RETRY_RECIPIENT = (
    "UPDATE recipient SET status = ?, attempts = attempts + 1, next_attempt_at = ?, warned = ?,"
    " last_reply = ?, last_hop = ? WHERE queue_id = ? AND number = ?"
)
_RECIPIENT_FIELDS = (
    "queue_id, number, forward_path, original_recipient, notify, target, rule, status, attempts,"
    " next_attempt_at, warned, last_reply, last_hop, outcome, finished_at"
)
SELECT_MESSAGE = (
    "SELECT message.queue_id, accepted_at, finished_at, reverse_path, body, smtputf8, envid, ret,"
    " protocol, client_ip, local_ip, helo, listener, trusted, reports_allowed, is_eight_bit, size,"
    " content_name, prepend"
)
SELECT_RECIPIENT = f"SELECT {_RECIPIENT_FIELDS} FROM recipient"
