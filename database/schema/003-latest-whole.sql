-- Version 3: the view `latest` shows the newest reading also while parts are not merged yet [G4].
--
-- Its first form took the fields of `newest` one by one from `state FINAL`. The engine then reads each field as a column of its own,
-- and a field of an aggregated tuple has no aggregate: until the parts were merged, it was that of the oldest part. The tuple
-- is made whole here before its fields are taken; materialize() keeps the engine from looking through it.

CREATE OR REPLACE VIEW telemetry.latest AS
SELECT device, metric, tupleElement(whole, 'ts') AS ts, tupleElement(whole, 'kind') AS kind,
       if(kind IN ('string', 'null'), NULL, tupleElement(whole, 'value')) AS value,
       tupleElement(whole, 'value_str') AS value_str, tupleElement(whole, 'received_at') AS received_at, seen_at
FROM (SELECT device, metric, materialize(newest) AS whole, seen_at FROM telemetry.state FINAL);
