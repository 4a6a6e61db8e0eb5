-- Version 1: the database `telemetry`, its readings, what is derived from them, and the views for analysts.
--
-- Every statement can run again after a kill half-way (IF NOT EXISTS). A statement ends with ';' at the end of a line.
-- The same file runs on the embedded engine and on a ClickHouse server.
--
-- Exactly once [G2]: each table that an insert reaches, also through a materialized view, keeps the tokens of the last
-- 10,000 inserts (non_replicated_deduplication_window). Without the window on a view's target, a repeated insert would
-- be dropped from `readings` and counted twice in the rollup.
--
-- fsync_*: before an insert is answered, the files of its part and the part's own folder are on the disk. The folder of the
-- table, in which the part is then renamed into place, is not synced (ClickHouse issue 111861). The journals of ext4 and XFS
-- take the name along with the part's own folder (test/crash/cut-disk.ts cuts the power); on a file system that does not, a
-- power loss, unlike a kill, can still take a part that was answered. The log keeps committed chunks for
-- SURGETANK_LOG_HOURS, from which such a loss could be repaired.
--
-- Nothing has a TTL: what was acknowledged is deleted by an operator's decision only.

-- Atomic: the chDB engine's own `default` database is an overlay over files, in which views cannot be refreshed.
CREATE DATABASE IF NOT EXISTS telemetry ENGINE = Atomic;

-- One row for each reading of each message, exactly as it was sent [G3].
-- The order of columns is that of the RowBinary blocks (database/row-binary.ts).
CREATE TABLE IF NOT EXISTS telemetry.readings
(
  device          LowCardinality(String) COMMENT 'Who sent it: the id the device proved to be',
  metric          LowCardinality(String) COMMENT 'What was measured; nested names are joined with a dot',
  -- Times and positions grow steadily within a part: Delta leaves small differences, ZSTD packs them to a fraction of a byte.
  ts              DateTime64(3, 'UTC') COMMENT 'The time of the reading: the one the device gave, or that of receipt when it gave none or its clock was over 5 minutes ahead' CODEC(Delta, ZSTD(1)),
  kind            Enum8('number' = 1, 'integer' = 2, 'bool' = 3, 'string' = 4, 'null' = 5) COMMENT 'What value was sent: number; integer, beyond 2^53; bool; string; null',
  -- ZSTD beats Gorilla and FPC on decimal sensor values. NULL, not 0, for text: avg() must never count what is no number.
  value           Nullable(Float64) COMMENT 'The number; 0 or 1 of a bool; the nearest double of an integer beyond 2^53; NULL for string and null' CODEC(ZSTD(1)),
  value_str       String COMMENT 'The text of a string, the exact digits of an integer beyond 2^53; empty for the other kinds' CODEC(ZSTD(1)),
  -- From the log, never now(): a repeated insert must give the same rows in the same partition.
  received_at     DateTime64(3, 'UTC') COMMENT 'When the broker received it' CODEC(Delta, ZSTD(1)),
  sent_ts         Int64 COMMENT 'The time the device gave, ms since 1970; 0 when it gave none' CODEC(Delta, ZSTD(1)),
  source          LowCardinality(String) COMMENT 'The log and partition it came from',
  source_position UInt64 COMMENT 'The chunk of that partition' CODEC(Delta, ZSTD(1)),
  source_index    UInt32 COMMENT 'The place of the reading in the chunk' CODEC(ZSTD(1)),
  -- Which rows of a range of the log are stored is asked at each start of a writer: parts of other days are passed over.
  INDEX source_position_range source_position TYPE minmax GRANULARITY 8
)
ENGINE = MergeTree
-- The day of receipt, not of the reading: a batch then falls into one partition even when devices send old readings.
PARTITION BY toYYYYMMDD(received_at)
-- Metric first: one metric over the fleet is one range, and one device's metric is one range within it.
ORDER BY (metric, device, ts)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- The newest reading of each metric of each device [G4]: the greatest in the total order of model/reading.ts (`isNewer`).
-- A maximum does not depend on the order of arrival, and repeating a row changes nothing.
CREATE TABLE IF NOT EXISTS telemetry.state
(
  device          LowCardinality(String) COMMENT 'The device',
  metric          LowCardinality(String) COMMENT 'The metric',
  -- Compared field by field: time, receipt, kind, number (0 where there is none), text bytewise.
  newest SimpleAggregateFunction(max, Tuple(
           ts          DateTime64(3, 'UTC'),
           received_at DateTime64(3, 'UTC'),
           kind        Enum8('number' = 1, 'integer' = 2, 'bool' = 3, 'string' = 4, 'null' = 5),
           value       Float64,
           value_str       String)) COMMENT 'The greatest of all its readings; read it through the view `latest`',
  seen_at         SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'The last receipt of any of its readings, late ones included'
)
ENGINE = AggregatingMergeTree
ORDER BY (device, metric)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- A plain projection, without GROUP BY: the engine collapses equal keys of a block while it sorts it, at half the cost.
CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.state_mv TO telemetry.state AS
SELECT device, metric, tuple(ts, received_at, kind, ifNull(value, 0), value_str) AS newest, received_at AS seen_at
FROM telemetry.readings;

-- Rollups: numbers only (number, integer, bool). Sums, not averages, so that partial rows of late readings add up.
-- Partitioned by the year of the reading: a batch may hold readings from 2000 on, and one insert may touch 100 partitions.
CREATE TABLE IF NOT EXISTS telemetry.readings_1m
(
  metric          LowCardinality(String) COMMENT 'The metric',
  device          LowCardinality(String) COMMENT 'The device',
  bucket          DateTime('UTC') COMMENT 'Start of the minute of the reading''s time' CODEC(Delta, ZSTD(1)),
  readings        SimpleAggregateFunction(sum, UInt64) COMMENT 'Numeric readings of the minute',
  value_sum       SimpleAggregateFunction(sum, Float64) COMMENT 'Their sum',
  value_min       SimpleAggregateFunction(min, Float64) COMMENT 'The least of them',
  value_max       SimpleAggregateFunction(max, Float64) COMMENT 'The greatest of them'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYear(bucket)
ORDER BY (metric, device, bucket)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.readings_1m_mv TO telemetry.readings_1m AS
SELECT r.metric AS metric, r.device AS device, toStartOfMinute(r.ts) AS bucket, count() AS readings,
       sum(assumeNotNull(r.value)) AS value_sum, min(assumeNotNull(r.value)) AS value_min, max(assumeNotNull(r.value)) AS value_max
FROM telemetry.readings AS r
WHERE r.kind IN ('number', 'integer', 'bool')
GROUP BY metric, device, bucket;

CREATE TABLE IF NOT EXISTS telemetry.readings_1h
(
  metric          LowCardinality(String) COMMENT 'The metric',
  device          LowCardinality(String) COMMENT 'The device',
  bucket          DateTime('UTC') COMMENT 'Start of the hour of the reading''s time, UTC' CODEC(Delta, ZSTD(1)),
  readings        SimpleAggregateFunction(sum, UInt64) COMMENT 'Numeric readings of the hour',
  value_sum       SimpleAggregateFunction(sum, Float64) COMMENT 'Their sum',
  value_min       SimpleAggregateFunction(min, Float64) COMMENT 'The least of them',
  value_max       SimpleAggregateFunction(max, Float64) COMMENT 'The greatest of them'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYear(bucket)
ORDER BY (metric, device, bucket)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Chained: fed by the rows that an insert adds to the minutes, a tenth of the readings. Columns are qualified because
-- an unqualified name would mean the alias beside it.
CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.readings_1h_mv TO telemetry.readings_1h AS
SELECT m.metric AS metric, m.device AS device, toStartOfHour(m.bucket) AS bucket, sum(m.readings) AS readings,
       sum(m.value_sum) AS value_sum, min(m.value_min) AS value_min, max(m.value_max) AS value_max
FROM telemetry.readings_1m AS m
GROUP BY metric, device, bucket;

-- One row for each device and metric: its newest reading.
CREATE VIEW IF NOT EXISTS telemetry.latest AS
SELECT device, metric, newest.ts AS ts, newest.kind AS kind,
       if(newest.kind IN ('string', 'null'), NULL, newest.value) AS value,
       newest.value_str AS value_str, newest.received_at AS received_at, seen_at
FROM telemetry.state FINAL;

-- Per minute, hour and day (UTC) of the reading's time: how many numeric readings, their average, least and greatest.
CREATE VIEW IF NOT EXISTS telemetry.minutely AS
SELECT m.device AS device, m.metric AS metric, m.bucket AS bucket, sum(m.readings) AS readings,
       sum(m.value_sum) / sum(m.readings) AS avg, min(m.value_min) AS min, max(m.value_max) AS max
FROM telemetry.readings_1m AS m
GROUP BY metric, device, bucket;

CREATE VIEW IF NOT EXISTS telemetry.hourly AS
SELECT h.device AS device, h.metric AS metric, h.bucket AS bucket, sum(h.readings) AS readings,
       sum(h.value_sum) / sum(h.readings) AS avg, min(h.value_min) AS min, max(h.value_max) AS max
FROM telemetry.readings_1h AS h
GROUP BY metric, device, bucket;

CREATE VIEW IF NOT EXISTS telemetry.daily AS
SELECT h.device AS device, h.metric AS metric, toDate(h.bucket) AS bucket, sum(h.readings) AS readings,
       sum(h.value_sum) / sum(h.readings) AS avg, min(h.value_min) AS min, max(h.value_max) AS max
FROM telemetry.readings_1h AS h
GROUP BY metric, device, bucket;
