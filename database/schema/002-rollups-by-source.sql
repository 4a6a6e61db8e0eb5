-- Version 2: each row of a rollup tells how many of its readings came from which partition of the log.
--
-- Several writers insert at once, each its own partition. Whether a rollup lacks an insert that a kill cut short is told by
-- counting; readings of another partition, whose insert is half-way between `readings` and the rollup, must not look
-- like lacking ones (docs/decisions/009-rollups-count-by-source.md).
--
-- Every statement can run again after a kill half-way, and by several processes at once.

-- Rows of rollups that were written before this version do not tell. They hold the readings of a source that stand before
-- the newest of this table. Written once, before the column exists.
CREATE TABLE IF NOT EXISTS telemetry.by_source_from
(
  source          LowCardinality(String) COMMENT 'A log and its partition that had rows before version 2',
  source_position UInt64 COMMENT 'The chunk from which on rollups count by source',
  source_index    UInt32 COMMENT 'The reading of that chunk'
)
ENGINE = MergeTree
ORDER BY source
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

INSERT INTO telemetry.by_source_from (source, source_position, source_index)
SELECT source, max((source_position, source_index + 1)).1, max((source_position, source_index + 1)).2
FROM telemetry.readings
WHERE (SELECT count() FROM system.columns WHERE database = 'telemetry' AND table = 'readings_1h' AND name = 'by_source') = 0
GROUP BY source;

-- A map in the row, not a column of the key: the rows stay as few as they were, and who does not ask for it does not read it.
ALTER TABLE telemetry.readings_1m ADD COLUMN IF NOT EXISTS
  by_source SimpleAggregateFunction(sumMap, Map(String, UInt64)) COMMENT 'Numeric readings of the minute by source; those from before version 2 are not in it';

ALTER TABLE telemetry.readings_1h ADD COLUMN IF NOT EXISTS
  by_source SimpleAggregateFunction(sumMap, Map(String, UInt64)) COMMENT 'Numeric readings of the hour by source; those from before version 2 are not in it';

ALTER TABLE telemetry.readings_1m_mv MODIFY QUERY
SELECT r.metric AS metric, r.device AS device, toStartOfMinute(r.ts) AS bucket, count() AS readings,
       sum(assumeNotNull(r.value)) AS value_sum, min(assumeNotNull(r.value)) AS value_min, max(assumeNotNull(r.value)) AS value_max,
       sumMap(map(toString(r.source), toUInt64(1))) AS by_source
FROM telemetry.readings AS r
WHERE r.kind IN ('number', 'integer', 'bool')
GROUP BY metric, device, bucket;

ALTER TABLE telemetry.readings_1h_mv MODIFY QUERY
SELECT m.metric AS metric, m.device AS device, toStartOfHour(m.bucket) AS bucket, sum(m.readings) AS readings,
       sum(m.value_sum) AS value_sum, min(m.value_min) AS value_min, max(m.value_max) AS value_max,
       sumMap(m.by_source) AS by_source
FROM telemetry.readings_1m AS m
GROUP BY metric, device, bucket;
