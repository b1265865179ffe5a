-- The projector's catalog. Migrations expand before they contract; `oldest_version` is the oldest program version
-- that may still run against the catalog.

CREATE TABLE projector.program (
    singleton      boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    oldest_version text NOT NULL
);
INSERT INTO projector.program (oldest_version) VALUES ('0.1.0');

-- Every definition that was ever applied.
CREATE TABLE projector.definitions (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection      text        NOT NULL,
    digest          text        NOT NULL,
    definition      jsonb       NOT NULL,
    program_version text        NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON projector.definitions (projection, id);

-- A generation is one physical build of a projection, in a schema of its own.
CREATE TABLE projector.generations (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection        text        NOT NULL,
    number            integer     NOT NULL,
    definition_id     bigint      NOT NULL REFERENCES projector.definitions,
    semantics_version integer     NOT NULL,
    state             text        NOT NULL CHECK (state IN ('live', 'dropped')),
    created_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (projection, number)
);
CREATE UNIQUE INDEX ON projector.generations (projection) WHERE state = 'live';

-- How far a generation has read each partition. Updated by compare-and-set in the transaction that writes the rows.
CREATE TABLE projector.checkpoints (
    generation_id bigint  NOT NULL REFERENCES projector.generations ON DELETE CASCADE,
    topic         text    COLLATE "C" NOT NULL,
    partition     integer NOT NULL,
    next_offset   bigint  NOT NULL,
    events        bigint  NOT NULL DEFAULT 0,
    -- Events a second, lately.
    rate          double precision NOT NULL DEFAULT 0,
    last_time     timestamptz,
    committed_at  timestamptz,
    -- A partition added later waits until the older ones have passed these offsets: {"0": 120, "1": 98}.
    waits_for     jsonb,
    PRIMARY KEY (generation_id, topic, partition)
) WITH (fillfactor = 50);

-- What is known of a topic: its identity, so that one made anew under the same name is noticed, and the reason given
-- for reading it though its early history is gone.
CREATE TABLE projector.topics (
    generation_id bigint NOT NULL REFERENCES projector.generations ON DELETE CASCADE,
    topic         text   NOT NULL,
    topic_id      text,
    truncated     text,
    PRIMARY KEY (generation_id, topic)
);

-- A generation that stands still, and why. Removed when it goes on.
CREATE TABLE projector.halts (
    generation_id bigint PRIMARY KEY REFERENCES projector.generations ON DELETE CASCADE,
    topic         text,
    partition     integer,
    "offset"      bigint,
    code          text NOT NULL,
    message       text NOT NULL,
    halted_at     timestamptz NOT NULL DEFAULT now()
);
