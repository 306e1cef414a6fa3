-- The tables and functions of a shared log as they were in schema version 1.

-- `home` is the id of the data folder that the log belongs to; empty before anybody said so.
CREATE TABLE schema_stamp (
    version integer NOT NULL,
    id uuid NOT NULL,
    home text NOT NULL DEFAULT '');
CREATE SEQUENCE tick;

-- Milliseconds: whoever begins to append from now on stamps later than that.
CREATE TABLE clock (at bigint NOT NULL);
INSERT INTO clock VALUES (0);

-- Decisions that are stored as one; the bodies of theirs name their place in it and its CRC-32.
CREATE TABLE bundles (seq bigint PRIMARY KEY, content bytea NOT NULL);
CREATE TABLE decisions (
    seq bigint PRIMARY KEY,
    decision_id text COLLATE "C" NOT NULL UNIQUE,
    experiment text COLLATE "C" NOT NULL,
    bundle bigint,
    body bytea NOT NULL,
    checksum bigint NOT NULL);
CREATE INDEX decisions_feed ON decisions (experiment, seq);
CREATE INDEX decisions_bundled ON decisions (bundle) WHERE bundle IS NOT NULL;
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
-- To compress a body costs more than its kilobyte is worth; bundles are packed already.
ALTER TABLE bundles ALTER content SET STORAGE EXTERNAL;
ALTER TABLE decisions ALTER body SET STORAGE EXTERNAL;

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

CREATE FUNCTION newest_seq() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN greatest(0, (SELECT max(seq) FROM decisions), (SELECT max(seq) FROM reward_events),
        (SELECT max(seq) FROM unit_events));
END $$;

-- A reading of the clock in milliseconds; NULL is the server's own, now.
CREATE FUNCTION clock_reading(reading bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce(reading, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint);
END $$;

-- Closes the past: gives milliseconds, not before any row that can be read now. Once it is
-- committed, whoever gets a transaction number stamps later.
CREATE FUNCTION fence(reading bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    fenced bigint := greatest(clock_reading(reading), newest_seq() >> 20);
BEGIN
    UPDATE clock SET at = fenced WHERE at < fenced;
    RETURN at FROM clock;
END $$;

-- Stores a group of rows and gives its stamp in milliseconds. Where an id is there already, or is
-- remembered, that is a unique_violation, and nothing of the group is stored.
CREATE FUNCTION append(
    reading bigint, remembered bytea[], bundle_contents bytea[],
    decision_ids text[], experiments text[], decision_bundles int[], decision_bodies bytea[],
    decision_checksums bigint[],
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
        INSERT INTO decisions
            SELECT base + nextval('tick') - first, d, x, places[k], b, c
            FROM unnest(decision_ids, experiments, decision_bundles, decision_bodies,
                decision_checksums) AS t(d, x, k, b, c);
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
