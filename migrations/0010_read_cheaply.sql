-- How many events are parked, for whoever may see a view: a function would be planned anew for each answer.
CREATE VIEW projector.parked_of_view AS
    SELECT s.view, d.id FROM projector.served s JOIN projector.dead_letters d ON d.generation_id = s.generation_id
    WHERE NOT d.waits;
GRANT SELECT ON projector.parked_of_view TO PUBLIC;
