-- How the tables of a generation refer to one another: by what joins copy and rollups aggregate.
CREATE TABLE projector.relations (
    generation_id bigint  NOT NULL REFERENCES projector.generations ON DELETE CASCADE,
    -- The number that marks name.
    edge          integer NOT NULL,
    kind          text    NOT NULL CHECK (kind IN ('join', 'rollup')),
    from_table    text    NOT NULL,
    to_table      text    NOT NULL,
    -- Columns of the referring table (of a join: to_table; of a rollup: from_table) that hold the key of the other.
    by            text[]  NOT NULL,
    PRIMARY KEY (generation_id, edge)
);

-- Whether something is parked that would touch a row.
CREATE FUNCTION projector.is_parked_row(generation bigint, "table" text, key jsonb) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (
        SELECT 1 FROM projector.parked_rows p
        WHERE p.generation_id = is_parked_row.generation AND p."table" = is_parked_row."table" AND p.key = is_parked_row.key
            AND jsonb_hash_extended(p.key, 0) = jsonb_hash_extended(is_parked_row.key, 0)
    );
