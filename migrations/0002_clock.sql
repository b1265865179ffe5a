-- The greatest event time that a partition has had so far, in microseconds since 1970: what expires, and what may be
-- forgotten, follows it and no clock on a wall.
ALTER TABLE projector.checkpoints ADD COLUMN clock bigint;

-- Views that the SQL file beside a projection made, so that they can be made anew.
CREATE TABLE projector.companions (
    generation_id bigint NOT NULL REFERENCES projector.generations ON DELETE CASCADE,
    -- In the order in which they were made: a later one may stand on an earlier one.
    position      integer NOT NULL,
    view          text    NOT NULL,
    PRIMARY KEY (generation_id, position)
);

-- Event types that no table handles, counted.
CREATE TABLE projector.unhandled (
    generation_id bigint NOT NULL REFERENCES projector.generations ON DELETE CASCADE,
    source        text   NOT NULL,
    type          text   NOT NULL,
    events        bigint NOT NULL,
    PRIMARY KEY (generation_id, source, type)
);

-- Rounding half to even, as expressions do it; Postgres' own round goes away from zero.
CREATE FUNCTION projector.round_half_even(x numeric, digits integer) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE
        WHEN abs(x - trunc(x, digits)) * power(10::numeric, digits + 1) = 5 AND mod(trunc(x * power(10::numeric, digits)), 2) = 0
            THEN trunc(x, digits)
        ELSE round(x, digits)
    END;
