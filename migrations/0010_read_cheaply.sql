-- What an answer says of a view, for whoever may see the view: all of it in one place, with as little to be looked up as can
-- be, because it is looked up for every answer. Generation, parked events, topics, partitions, next offsets, seconds since
-- all of them were complete.
CREATE VIEW projector.view_states AS
    SELECT s.view, (
        SELECT json_build_array(
            (SELECT g.number FROM projector.generations g WHERE g.id = s.generation_id),
            (SELECT count(*) FROM projector.dead_letters d WHERE d.generation_id = s.generation_id AND NOT d.waits),
            array_agg(c.topic), array_agg(c.partition), array_agg(c.next_offset),
            CASE WHEN bool_and(c.caught_up_at IS NOT NULL)
                THEN extract(epoch FROM clock_timestamp() - min(c.caught_up_at)) END)
        FROM projector.checkpoints c WHERE c.generation_id = s.generation_id
    ) AS state
    FROM projector.served s;
GRANT SELECT ON projector.view_states TO PUBLIC;
