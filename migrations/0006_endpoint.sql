-- What readers may know of the rows that they see: which events are in them, and how fresh they are.
ALTER TABLE projector.checkpoints
    -- All that the partition had at this time is applied.
    ADD COLUMN caught_up_at timestamptz;

CREATE VIEW projector.reflected AS
    SELECT s.view, g.projection, g.number, c.topic, c.partition, c.next_offset, c.caught_up_at
    FROM projector.served s
        JOIN projector.generations g ON g.id = s.generation_id
        JOIN projector.checkpoints c ON c.generation_id = s.generation_id;

-- Whoever may see a view may ask how fresh it is, and whether something of it is parked.
GRANT USAGE ON SCHEMA projector TO PUBLIC;
GRANT SELECT ON projector.reflected TO PUBLIC;
