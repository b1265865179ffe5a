-- How often a partition was taken over without anything being committed since, and the event that is being stepped
-- over singly: how an event that brings the process down is found.
ALTER TABLE projector.checkpoints
    ADD COLUMN starts  integer NOT NULL DEFAULT 0,
    ADD COLUMN suspect bigint,
    ADD COLUMN tries   integer NOT NULL DEFAULT 0;

-- Events that are parked: they cannot be applied, or wait behind one that cannot.
CREATE TABLE projector.dead_letters (
    id            bigint GENERATED ALWAYS AS IDENTITY,
    -- No foreign key: what is parked goes with the checkpoints of its generation, and checking each letter would cost a
    -- good part of writing it.
    generation_id bigint  NOT NULL,
    topic         text    COLLATE "C" NOT NULL,
    partition     integer NOT NULL,
    "offset"      bigint  NOT NULL,
    record_time   timestamptz,
    key           bytea,
    payload       bytea,
    header_names  text[]  NOT NULL,
    header_values bytea[] NOT NULL,
    type          text,
    -- The partition's time before the event, in microseconds since 1970.
    clock         bigint,
    -- Digests of the sequences it belongs to.
    sequences     bytea[] NOT NULL,
    code          text    NOT NULL,
    message       text    NOT NULL,
    -- It has no error of its own: something before it is parked.
    waits         boolean NOT NULL,
    attempts      integer NOT NULL DEFAULT 1,
    parked_at     timestamptz NOT NULL DEFAULT now(),
    tried_at      timestamptz NOT NULL DEFAULT now(),
    -- Retries that were begun and have not ended: more than one, and it brings the process down.
    begun         integer NOT NULL DEFAULT 0,
    -- A person wants it to be tried again; the owner of the partition does it.
    requested_at  timestamptz,
    requested_by  text,
    -- It was written to the dead-letter topic.
    published     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (generation_id, topic, partition, "offset")
);
CREATE INDEX ON projector.dead_letters (generation_id) WHERE NOT waits;

-- The rows that parked events would touch, so that readers can be told. They come and go with their letters in the same
-- statements. The indexes are of numbers, which are cheaper to keep than keys: they need not tell all apart.
CREATE TABLE projector.parked_rows (
    generation_id bigint  NOT NULL,
    topic         text    COLLATE "C" NOT NULL,
    partition     integer NOT NULL,
    "offset"      bigint  NOT NULL,
    "table"       text    NOT NULL,
    key           jsonb   NOT NULL
);
CREATE INDEX ON projector.parked_rows ("offset");
CREATE INDEX ON projector.parked_rows (jsonb_hash_extended(key, 0));

-- What people decided about events. Every rebuild honours it.
CREATE TABLE projector.decisions (
    projection text    NOT NULL,
    topic      text    COLLATE "C" NOT NULL,
    partition  integer NOT NULL,
    "offset"   bigint  NOT NULL,
    -- The topic that the offset is of: one made anew under the same name has other events.
    topic_id   text,
    decision   text    NOT NULL CHECK (decision IN ('discard', 'correct')),
    -- What stands for the event's own payload.
    payload    bytea,
    original   bytea,
    reason     text    NOT NULL,
    decided_by text    NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, topic, partition, "offset")
);

-- Who did what about dead letters. Nothing is ever deleted from it.
CREATE TABLE projector.audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    who        text    NOT NULL,
    action     text    NOT NULL,
    projection text    NOT NULL,
    topic      text    NOT NULL,
    partition  integer NOT NULL,
    "offset"   bigint  NOT NULL,
    detail     text
);
CREATE INDEX ON projector.audit (projection, topic, partition, "offset");

-- The steps of upcasters that a generation's events may have gone through, with their digests: one may be added at any
-- time, because events that needed it were parked; one that is changed would have made other rows.
ALTER TABLE projector.generations ADD COLUMN upcasters jsonb NOT NULL DEFAULT '{}';

-- Events passed over because the projection says so, counted.
CREATE TABLE projector.skipped (
    generation_id bigint NOT NULL REFERENCES projector.generations ON DELETE CASCADE,
    code          text   NOT NULL,
    events        bigint NOT NULL,
    PRIMARY KEY (generation_id, code)
);

-- The views that readers see, and where their rows are.
CREATE TABLE projector.served (
    view          text   PRIMARY KEY,
    generation_id bigint NOT NULL REFERENCES projector.generations ON DELETE CASCADE,
    "table"       text   NOT NULL,
    key           text[] NOT NULL
);

-- What readers may know of parked events, without a right to read them: how many sequences of a view's projection are
-- parked, and whether a row has something parked.
CREATE FUNCTION projector.parked_sequences(view text) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN (
        SELECT count(*) FROM projector.dead_letters d JOIN projector.served s ON s.generation_id = d.generation_id
        WHERE s.view = parked_sequences.view AND NOT d.waits
    );
CREATE FUNCTION projector.is_parked(view text, key jsonb) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (
        SELECT 1 FROM projector.parked_rows p
        JOIN projector.served s ON s.generation_id = p.generation_id AND s."table" = p."table"
        WHERE s.view = is_parked.view AND p.key = is_parked.key
            AND jsonb_hash_extended(p.key, 0) = jsonb_hash_extended(is_parked.key, 0)
    );
