"""The tables and functions of a log in PostgreSQL. Which schema they lie in, the connection's
`search_path` says.

Decisions lie in tables of an hour each, and a line in `forgotten` says up to where they are let go:
the view `decisions` shows what is behind it. To forget is to write that line anew, and an hour that
lies before it is dropped as a whole, so that nothing has to be swept. What is small stays: a stub
has the id of a decision for as long as it is remembered, with what a late reward needs.

A row's `seq` is a hybrid clock: the milliseconds of its stamp, and below them 20 bits that a
sequence counts. So `seq` is the order of time, the stamp needs no column, and nothing has to number
rows one after the other.
"""

from __future__ import annotations

import re
import struct

LOW_BITS = 20
"""The bits of a `seq` below its milliseconds. With more, `seq` would exceed 2^62, which stands for
no limit. The functions below have it as a number."""
PLACE_IN_BUNDLE = struct.Struct("<HI")
"""The body of a bundled decision: its place in the bundle, and the bundle's CRC-32."""
VERSION = 3
"""What this code reads and writes; a log has its own in `schema_stamp`."""
OLDEST_SERVER = 15
"""The oldest PostgreSQL that is tested."""
SPAN = 3_600_000 << LOW_BITS
"""What the `seq`s of one partition span: an hour."""
AHEAD = 3
"""Hours for which partitions are made before they begin."""
_DUTIES = """
CREATE TABLE duties (
    name text PRIMARY KEY,
    at bigint NOT NULL,
    body bytea NOT NULL,
    checksum bigint NOT NULL);
"""

DECISION_TABLES = """
-- Decisions that are stored as one; the bodies of theirs name their place in it and its CRC-32.
CREATE TABLE bundles (seq bigint PRIMARY KEY, content bytea NOT NULL) PARTITION BY RANGE (seq);
CREATE TABLE decision_rows (
    seq bigint PRIMARY KEY,
    decision_id text COLLATE "C" NOT NULL,
    experiment text COLLATE "C" NOT NULL,
    bundle bigint,
    body bytea NOT NULL,
    checksum bigint NOT NULL) PARTITION BY RANGE (seq);
CREATE INDEX decision_rows_feed ON decision_rows (experiment, seq);
CREATE INDEX decision_rows_bundled ON decision_rows (bundle) WHERE bundle IS NOT NULL;
-- To compress a body costs more than its kilobyte is worth; bundles are packed already.
ALTER TABLE bundles ALTER content SET STORAGE EXTERNAL;
ALTER TABLE decision_rows ALTER body SET STORAGE EXTERNAL;
-- For rows of an hour that has no table, since no worker was there to make one.
CREATE TABLE bundles_rest PARTITION OF bundles DEFAULT;
CREATE TABLE decision_rows_rest PARTITION OF decision_rows DEFAULT;

-- Every decision whose id is known by itself. `origin` is what a late reward needs of it, behind
-- its CRC-32; NULL where that was not kept.
CREATE TABLE stubs (
    decision_id text COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL UNIQUE,
    origin bytea);
-- The last decision that was let go.
CREATE TABLE forgotten (through bigint NOT NULL);
INSERT INTO forgotten VALUES (0);
CREATE VIEW decisions AS
    SELECT * FROM decision_rows WHERE seq > (SELECT through FROM forgotten);
"""

UPGRADES: dict[int, str] = {
    1: _DUTIES,
    2: f"""
-- What lies in the tables of before becomes the first partition, with all until the next hour.
ALTER TABLE decisions RENAME TO decision_rows_before;
ALTER TABLE bundles RENAME TO bundles_before;
ALTER TABLE decision_rows_before DROP CONSTRAINT decisions_decision_id_key;
{DECISION_TABLES}
DO $$
DECLARE
    -- Behind every row that is there or may come within this hour.
    next_hour bigint := (greatest(clock_reading(NULL), (SELECT at FROM clock),
        (SELECT max(seq) >> 20 FROM decision_rows_before)) << 20) / {SPAN} * {SPAN} + {SPAN};
    given record;
    made text;
BEGIN
    EXECUTE format('ALTER TABLE decision_rows ATTACH PARTITION decision_rows_before '
        'FOR VALUES FROM (MINVALUE) TO (%s)', next_hour);
    EXECUTE format('ALTER TABLE bundles ATTACH PARTITION bundles_before '
        'FOR VALUES FROM (MINVALUE) TO (%s)', next_hour);
    INSERT INTO stubs SELECT decision_id, seq, NULL FROM decision_rows_before;
    -- Who could use the table of before can use what takes its place.
    FOR given IN SELECT grantee, privilege_type
        FROM pg_class, aclexplode(relacl) WHERE oid = 'decision_rows_before'::regclass
    LOOP
        FOREACH made IN ARRAY ARRAY['bundles', 'decision_rows', 'stubs', 'forgotten', 'decisions',
            'duties']
        LOOP
            EXECUTE format('GRANT %s ON %I TO %s', given.privilege_type, made,
                CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END);
        END LOOP;
    END LOOP;
END $$;
-- Processes of the version before are answered that it is not there: they would write no stubs.
DROP FUNCTION append(bigint, bytea[], bytea[], text[], text[], int[], bytea[], bigint[],
    text[], text[], bytea[], bigint[], text[], text[], text[], bytea[], bigint[]);
""",  # noqa: S608 (own names)
}
"""The statements that bring a log from a version to the next, by the version from which; behind the
last of them the functions are made anew. What they change, processes of the version before may be
writing to meanwhile."""

TABLES = f"""
-- `home` is the id of the data folder that the log belongs to; empty before anybody said so.
CREATE TABLE schema_stamp (
    version integer NOT NULL,
    id uuid NOT NULL,
    home text NOT NULL DEFAULT '');
CREATE SEQUENCE tick;

-- Milliseconds: whoever begins to append from now on stamps later than that.
CREATE TABLE clock (at bigint NOT NULL);
INSERT INTO clock VALUES (0);

{DECISION_TABLES}
CREATE TABLE reward_events (
    seq bigint PRIMARY KEY,
    decision_id text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    checksum bigint NOT NULL,
    UNIQUE (decision_id, event_id));
CREATE TABLE unit_events (
    seq bigint PRIMARY KEY,
    unit_type text COLLATE "C" NOT NULL,
    unit text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    checksum bigint NOT NULL,
    UNIQUE (unit_type, unit, event_id));
-- The others are those of the embedded log; see `database`.
CREATE TABLE remembered_ids (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key bytea NOT NULL UNIQUE,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    checksum bigint NOT NULL);
CREATE TABLE policy_snapshots (
    experiment text NOT NULL,
    version bigint NOT NULL,
    watermark bigint NOT NULL,
    at bigint NOT NULL,
    fingerprint text NOT NULL,
    start bigint NOT NULL,
    refit_at bigint NOT NULL,
    blob bytea NOT NULL,
    PRIMARY KEY (experiment, version));
CREATE TABLE snapshot_checksums (
    experiment text NOT NULL,
    version bigint NOT NULL,
    checksum bigint NOT NULL,
    PRIMARY KEY (experiment, version));
CREATE TABLE policy_engines (
    experiment text NOT NULL,
    version bigint NOT NULL,
    variant text NOT NULL,
    engine text NOT NULL,
    checksum bigint NOT NULL,
    PRIMARY KEY (experiment, version, variant));
CREATE TABLE revisions (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    experiment text NOT NULL,
    revision text NOT NULL,
    at bigint NOT NULL,
    who text NOT NULL,
    spec text NOT NULL,
    checksum bigint NOT NULL);
CREATE TABLE orders (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    experiment text NOT NULL,
    revision text NOT NULL,
    made text NOT NULL,
    at bigint NOT NULL,
    who text NOT NULL,
    status text NOT NULL,
    because text NOT NULL,
    conclusion text NOT NULL,
    kind text NOT NULL,
    step bigint NOT NULL,
    traffic text NOT NULL,
    about text NOT NULL,
    checksum bigint NOT NULL);
CREATE UNIQUE INDEX launch_steps ON orders (experiment, revision, step) WHERE step > 0;
CREATE TABLE conclusions (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    experiment text NOT NULL,
    revision text NOT NULL,
    made text NOT NULL,
    at bigint NOT NULL,
    who text NOT NULL,
    winner text NOT NULL,
    because text NOT NULL,
    report bytea NOT NULL,
    checksum bigint NOT NULL);
CREATE TABLE alarms (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alarm text NOT NULL,
    state text NOT NULL,
    kind text NOT NULL,
    experiment text NOT NULL,
    subject text NOT NULL,
    cause text NOT NULL,
    message text NOT NULL,
    at bigint NOT NULL,
    checksum bigint NOT NULL,
    UNIQUE (alarm, state));
CREATE TABLE alarm_messages (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alarm text NOT NULL,
    state text NOT NULL,
    channel text NOT NULL,
    at bigint NOT NULL,
    checksum bigint NOT NULL,
    UNIQUE (alarm, state, channel));
CREATE TABLE alarm_watches (
    experiment text PRIMARY KEY,
    through bigint NOT NULL,
    memory bytea NOT NULL,
    checksum bigint NOT NULL);
CREATE TABLE quarantine (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    stage text NOT NULL,
    experiment text NOT NULL,
    id text NOT NULL,
    belongs_to text NOT NULL,
    seq bigint NOT NULL,
    reason text NOT NULL,
    body bytea NOT NULL,
    at bigint NOT NULL,
    checksum bigint NOT NULL,
    UNIQUE (kind, stage, seq));
CREATE TABLE heartbeat (
    id bigint PRIMARY KEY,
    at bigint NOT NULL,
    published_at bigint NOT NULL,
    checksum bigint NOT NULL);
CREATE TABLE erasures (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at bigint NOT NULL,
    unit_hash text NOT NULL,
    experiment text NOT NULL,
    version bigint NOT NULL,
    decisions bigint NOT NULL,
    rewards bigint NOT NULL,
    checksum bigint NOT NULL);
CREATE TABLE retentions (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at bigint NOT NULL,
    kept_since bigint NOT NULL,
    decisions bigint NOT NULL,
    rewards bigint NOT NULL,
    events bigint NOT NULL,
    quarantined bigint NOT NULL,
    checksum bigint NOT NULL);
CREATE TABLE profiles (
    unit text PRIMARY KEY,
    unit_type text NOT NULL,
    kids bigint NOT NULL,
    maturity bigint NOT NULL,
    region text NOT NULL,
    at bigint NOT NULL,
    checksum bigint NOT NULL);
CREATE TABLE merges (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    unit text NOT NULL,
    unit_type text NOT NULL,
    merged text NOT NULL,
    at bigint NOT NULL,
    checksum bigint NOT NULL,
    UNIQUE (unit, merged));
"""  # noqa: S608 (own tables)
TABLES += _DUTIES
NAMES = tuple(re.findall(r"^CREATE TABLE (\w+) \(", TABLES, re.MULTILINE))
"""Every table but the partitions of one."""

FUNCTIONS = f"""
CREATE OR REPLACE FUNCTION newest_seq() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN greatest(0, (SELECT max(seq) FROM stubs), (SELECT max(seq) FROM reward_events),
        (SELECT max(seq) FROM unit_events));
END $$;

-- A reading of the clock in milliseconds; NULL is the server's own, now.
CREATE OR REPLACE FUNCTION clock_reading(reading bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce(reading, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint);
END $$;

-- Closes the past: gives milliseconds, not before any row that can be read now. Once it is
-- committed, whoever gets a transaction number stamps later.
CREATE OR REPLACE FUNCTION fence(reading bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    fenced bigint := greatest(clock_reading(reading), newest_seq() >> 20);
BEGIN
    UPDATE clock SET at = fenced WHERE at < fenced;
    RETURN at FROM clock;
END $$;

-- Stores a group of rows and gives its stamp in milliseconds. Where an id is there already, or is
-- remembered, that is a unique_violation, and nothing of the group is stored.
CREATE OR REPLACE FUNCTION append(
    reading bigint, remembered bytea[], bundle_contents bytea[],
    decision_ids text[], experiments text[], decision_bundles int[], decision_bodies bytea[],
    decision_checksums bigint[], origins bytea[],
    event_decisions text[], event_ids text[], event_bodies bytea[], event_checksums bigint[],
    unit_types text[], units text[], unit_event_ids text[], unit_event_bodies bytea[],
    unit_event_checksums bigint[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
    stamp bigint;
    first bigint := nextval('tick');
    base bigint;
    places bigint[];
BEGIN
    -- The number of this transaction comes before its look at the clock: whose number is later than
    -- a fence sees the fence, and a reader waits for all others. The barrier rests on this order.
    PERFORM pg_current_xact_id();
    newest := newest_seq();
    SELECT greatest(clock_reading(reading), at + 1, newest >> 20) INTO stamp FROM clock;
    base := (stamp << 20) + (first & 1048575);
    -- The counter has begun anew within one millisecond.
    IF base <= newest THEN
        base := base + 1048576;
    END IF;

    IF cardinality(bundle_contents) > 0 THEN
        places := ARRAY(SELECT base + nextval('tick') - first
            FROM generate_series(1, cardinality(bundle_contents)));
        INSERT INTO bundles SELECT * FROM unnest(places, bundle_contents);
    END IF;
    IF cardinality(decision_ids) > 0 THEN
        WITH new AS MATERIALIZED (
            SELECT base + nextval('tick') - first AS seq, t.*
            FROM unnest(decision_ids, experiments, decision_bundles, decision_bodies,
                decision_checksums, origins) AS t(d, x, k, b, c, o)
        ), known AS (
            INSERT INTO stubs SELECT d, seq, o FROM new
        )
        INSERT INTO decision_rows SELECT seq, d, x, places[k], b, c FROM new;
    END IF;
    IF cardinality(event_ids) > 0 THEN
        INSERT INTO reward_events
            SELECT base + nextval('tick') - first, d, e, b, c
            FROM unnest(event_decisions, event_ids, event_bodies, event_checksums)
                AS t(d, e, b, c);
    END IF;
    IF cardinality(unit_event_ids) > 0 THEN
        INSERT INTO unit_events
            SELECT base + nextval('tick') - first, y, u, e, b, c
            FROM unnest(unit_types, units, unit_event_ids, unit_event_bodies,
                unit_event_checksums) AS t(y, u, e, b, c);
    END IF;

    -- Last: who lets go of a row holds up whoever inserts it anew, and has committed by now.
    IF EXISTS (SELECT FROM remembered_ids WHERE key = ANY (remembered)) THEN
        RAISE unique_violation USING MESSAGE = 'an id is remembered';
    END IF;
    RETURN base >> 20;
END $$;

-- Makes the tables of this hour and the next ones, and drops those of hours that are let go. A role
-- that owns no table may do that much by it. Who would have to wait for others leaves it for the
-- next time.
CREATE OR REPLACE FUNCTION tend_partitions(reading bigint) RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET lock_timeout = '100ms' AS $$
DECLARE
    this bigint := (greatest(clock_reading(reading), (SELECT at FROM clock)) << 20) / {SPAN};
    -- A bundle may lie a moment before its decisions, on the other side of the hour.
    gone bigint := ((SELECT through FROM forgotten) - (1 << 21)) / {SPAN};
    parent text;
    child record;
    is_empty boolean;
BEGIN
    IF NOT has_table_privilege(session_user, 'decision_rows', 'DELETE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'permission denied to drop decisions';
    END IF;
    FOREACH parent IN ARRAY ARRAY['decision_rows', 'bundles'] LOOP
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM %I)', parent || '_rest') INTO is_empty;
        FOR hour IN this + (NOT is_empty)::int .. this + {AHEAD} LOOP
            CONTINUE WHEN to_regclass(parent || '_' || hour) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%s)',
                    parent || '_' || hour, parent, hour * {SPAN}, (hour + 1) * {SPAN});
            EXCEPTION WHEN invalid_object_definition OR check_violation THEN
                -- Another one has that hour's rows: that of before, or the rest.
                NULL;
            END;
        END LOOP;
        IF NOT is_empty THEN
            EXECUTE format('SELECT max(seq) / {SPAN} < %s FROM %I', gone, parent || '_rest')
                INTO is_empty;
            IF is_empty THEN
                EXECUTE format('TRUNCATE %I', parent || '_rest');
            END IF;
        END IF;
        FOR child IN SELECT c.relname AS name,
                nullif(split_part(pg_get_expr(c.relpartbound, c.oid), '''', -2), '')::bigint AS ends
            FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
            WHERE inhparent = parent::regclass
        LOOP
            IF child.ends <= gone * {SPAN} THEN
                EXECUTE format('DROP TABLE %I', child.name);
            END IF;
        END LOOP;
    END LOOP;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END $$;
-- What it makes and drops lies where it does, whatever the caller's path is.
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION tend_partitions(bigint) SET search_path = %I, pg_temp',
        current_schema());
END $$;
"""  # noqa: S608 (own numbers)
