-- How fresh each projection is and how much of it is parked, as rows: for dashboards and alerts that do not see the headers of
-- an answer. A role that is to ask needs `GRANT SELECT ON views.freshness TO …`.
CREATE OR REPLACE VIEW views.freshness AS
SELECT
    projection,
    string_agg(DISTINCT view, ', ') AS views,
    -- The rows hold all that the partitions had so many seconds ago; null while nobody knows.
    CASE WHEN bool_and(caught_up_at IS NOT NULL)
        THEN round(greatest(extract(epoch FROM clock_timestamp() - min(caught_up_at)), 0), 3)
    END AS staleness_s,
    -- Partitions that have not been read to their end yet.
    count(DISTINCT (topic, partition)) FILTER (WHERE caught_up_at IS NULL) AS unknown_partitions,
    -- Sequences that wait because of an event that could not be applied.
    projector.parked_sequences(min(view)) AS parked
FROM projector.reflected
GROUP BY projection;
