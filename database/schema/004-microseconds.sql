-- Version 4: times in microseconds, and the tables that are not for analysts in a database of their own.
--
-- The whole schema, as a fresh start makes it: earlier files are not run then. An older database is rewritten into it
-- (database/rewrite.ts), because the types of a sort key cannot be altered. `telemetry_internal` holds what analysts need not
-- see; where the user of a server may not create it, those tables stand in `telemetry` too.
--
-- What versions 1 to 3 say of tokens, fsync and deletion holds on (001-readings.sql, 002-rollups-by-source.sql). Every
-- statement can run again after a kill half-way, and by several processes at once.

CREATE DATABASE IF NOT EXISTS telemetry ENGINE = Atomic;

-- One row for each reading of each message, exactly as it was sent [G3].
-- The order of the stored columns is that of the RowBinary blocks (database/row-binary.ts). Two times are stored as their
-- difference to `ts`, which is small or none, and read under their own names (docs/decisions/012-times-as-differences.md).
CREATE TABLE IF NOT EXISTS telemetry.readings
(
  device          LowCardinality(String) COMMENT 'Who sent it: the id the device proved to be',
  metric          LowCardinality(String) COMMENT 'What was measured; nested names are joined with a dot',
  -- GCD: most clocks tell whole milliseconds, and the three digits behind them cost nothing then.
  ts              DateTime64(6, 'UTC') COMMENT 'The time of the reading: the one the device gave, or that of receipt when it gave none or its clock was over 5 minutes ahead' CODEC(GCD, Delta, ZSTD(1)),
  kind            Enum8('number' = 1, 'integer' = 2, 'bool' = 3, 'string' = 4, 'null' = 5) COMMENT 'What value was sent: number; integer, beyond 2^53; bool; string; null',
  -- ZSTD beats Gorilla and FPC on decimal sensor values. NULL, not 0, for text: avg() must never count what is no number.
  value           Nullable(Float64) COMMENT 'The number; 0 or 1 of a bool; the nearest double of an integer beyond 2^53; NULL for string and null' CODEC(ZSTD(1)),
  value_str       String COMMENT 'The text of a string, the exact digits of an integer beyond 2^53; empty for the other kinds' CODEC(ZSTD(1)),
  received_delta  Int64 COMMENT 'How long after `ts` the broker received it, µs; read `received_at`' CODEC(T64, ZSTD(1)),
  sent_delta      Nullable(Int64) COMMENT 'How far the time that the device gave is ahead of `ts`, µs; NULL when it gave none; read `sent_ts`' CODEC(ZSTD(1)),
  source          LowCardinality(String) COMMENT 'The log and partition it came from',
  source_position UInt64 COMMENT 'The chunk of that partition' CODEC(Delta, ZSTD(1)),
  source_index    UInt32 COMMENT 'The place of the reading in the chunk' CODEC(ZSTD(1)),
  received_at     DateTime64(6, 'UTC') ALIAS ts + toIntervalMicrosecond(received_delta) COMMENT 'When the broker received it',
  sent_ts         Nullable(Int64) ALIAS toUnixTimestamp64Micro(ts) + sent_delta COMMENT 'The time the device gave, µs since 1970; NULL when it gave none',
  -- Which rows of a range of the log are stored is asked at each start of a writer: parts of other days are passed over.
  INDEX source_position_range source_position TYPE minmax GRANULARITY 8
)
ENGINE = MergeTree
-- The day of receipt, not of the reading: a batch then falls into one partition even when devices send old readings. It is said
-- by `ts`, so every part also knows its least and greatest `ts`: what is asked for a time passes over all other parts.
PARTITION BY toYYYYMMDD(ts + toIntervalMicrosecond(received_delta))
-- Metric first: one metric over the fleet is one range, and one device's metric is one range within it.
ORDER BY (metric, device, ts)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- The newest reading of each metric of each device [G4]: the greatest in the total order of model/reading.ts (`isNewer`).
-- A maximum does not depend on the order of arrival, and repeating a row changes nothing.
CREATE TABLE IF NOT EXISTS telemetry_internal.state
(
  device          LowCardinality(String) COMMENT 'The device',
  metric          LowCardinality(String) COMMENT 'The metric',
  -- Compared field by field: time, receipt, kind, number (0 where there is none), text bytewise.
  newest SimpleAggregateFunction(max, Tuple(
           ts          DateTime64(6, 'UTC'),
           received_at DateTime64(6, 'UTC'),
           kind        Enum8('number' = 1, 'integer' = 2, 'bool' = 3, 'string' = 4, 'null' = 5),
           value       Float64,
           value_str       String)) COMMENT 'The greatest of all its readings; read it through the view `latest`',
  seen_at         SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'The last receipt of any of its readings, late ones included'
)
ENGINE = AggregatingMergeTree
ORDER BY (device, metric)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Rollups: numbers only (number, integer, bool). Sums, not averages, so that partial rows of late readings add up.
-- Partitioned by the year of the reading: a batch may hold readings from 2000 on, and one insert may touch 100 partitions.
CREATE TABLE IF NOT EXISTS telemetry_internal.readings_1m
(
  metric          LowCardinality(String) COMMENT 'The metric',
  device          LowCardinality(String) COMMENT 'The device',
  bucket          DateTime('UTC') COMMENT 'Start of the minute of the reading''s time' CODEC(Delta, ZSTD(1)),
  readings        SimpleAggregateFunction(sum, UInt64) COMMENT 'Numeric readings of the minute',
  value_sum       SimpleAggregateFunction(sum, Float64) COMMENT 'Their sum',
  value_min       SimpleAggregateFunction(min, Float64) COMMENT 'The least of them',
  value_max       SimpleAggregateFunction(max, Float64) COMMENT 'The greatest of them',
  by_source SimpleAggregateFunction(sumMap, Map(String, UInt64)) COMMENT 'Numeric readings of the minute by source; those from before version 2 are not in it'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYear(bucket)
ORDER BY (metric, device, bucket)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS telemetry_internal.readings_1h
(
  metric          LowCardinality(String) COMMENT 'The metric',
  device          LowCardinality(String) COMMENT 'The device',
  bucket          DateTime('UTC') COMMENT 'Start of the hour of the reading''s time, UTC' CODEC(Delta, ZSTD(1)),
  readings        SimpleAggregateFunction(sum, UInt64) COMMENT 'Numeric readings of the hour',
  value_sum       SimpleAggregateFunction(sum, Float64) COMMENT 'Their sum',
  value_min       SimpleAggregateFunction(min, Float64) COMMENT 'The least of them',
  value_max       SimpleAggregateFunction(max, Float64) COMMENT 'The greatest of them',
  by_source SimpleAggregateFunction(sumMap, Map(String, UInt64)) COMMENT 'Numeric readings of the hour by source; those from before version 2 are not in it'
)
ENGINE = AggregatingMergeTree
PARTITION BY toYear(bucket)
ORDER BY (metric, device, bucket)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Rows of rollups that were written before version 2 do not tell their source. They hold the readings of a source that stand
-- before the newest of this table.
CREATE TABLE IF NOT EXISTS telemetry_internal.by_source_from
(
  source          LowCardinality(String) COMMENT 'A log and its partition that had rows before version 2',
  source_position UInt64 COMMENT 'The chunk from which on rollups count by source',
  source_index    UInt32 COMMENT 'The reading of that chunk'
)
ENGINE = MergeTree
ORDER BY source
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- A plain projection, without GROUP BY: the engine collapses equal keys of a block while it sorts it, at half the cost. What
-- `received_at` stands for is written out: views see the stored columns of an insert.
CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry_internal.state_feed TO telemetry_internal.state AS
SELECT device, metric,
       tuple(ts, ts + toIntervalMicrosecond(received_delta), kind, ifNull(value, 0), value_str) AS newest,
       ts + toIntervalMicrosecond(received_delta) AS seen_at
FROM telemetry.readings;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry_internal.readings_1m_feed TO telemetry_internal.readings_1m AS
SELECT r.metric AS metric, r.device AS device, toStartOfMinute(r.ts) AS bucket, count() AS readings,
       sum(assumeNotNull(r.value)) AS value_sum, min(assumeNotNull(r.value)) AS value_min, max(assumeNotNull(r.value)) AS value_max,
       sumMap(map(toString(r.source), toUInt64(1))) AS by_source
FROM telemetry.readings AS r
WHERE r.kind IN ('number', 'integer', 'bool')
GROUP BY metric, device, bucket;

-- Chained: fed by the rows that an insert adds to the minutes, a tenth of the readings. Columns are qualified because
-- an unqualified name would mean the alias beside it.
CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry_internal.readings_1h_feed TO telemetry_internal.readings_1h AS
SELECT m.metric AS metric, m.device AS device, toStartOfHour(m.bucket) AS bucket, sum(m.readings) AS readings,
       sum(m.value_sum) AS value_sum, min(m.value_min) AS value_min, max(m.value_max) AS value_max,
       sumMap(m.by_source) AS by_source
FROM telemetry_internal.readings_1m AS m
GROUP BY metric, device, bucket;

-- The views say their types, so that clients meet none that only the engine knows, and explain each column.
-- One row for each device and metric: its newest reading. The tuple is made whole before its fields are taken, and materialize()
-- keeps the engine from looking through it: a field of an aggregated tuple has no aggregate (003-latest-whole.sql).
CREATE OR REPLACE VIEW telemetry.latest
(
  device      LowCardinality(String) COMMENT 'The device',
  metric      LowCardinality(String) COMMENT 'The metric',
  ts          DateTime64(6, 'UTC') COMMENT 'The time of its newest reading',
  kind        Enum8('number' = 1, 'integer' = 2, 'bool' = 3, 'string' = 4, 'null' = 5) COMMENT 'What value was sent: number; integer, beyond 2^53; bool; string; null',
  value       Nullable(Float64) COMMENT 'The number; 0 or 1 of a bool; the nearest double of an integer beyond 2^53; NULL for string and null',
  value_str   String COMMENT 'The text of a string, the exact digits of an integer beyond 2^53; empty for the other kinds',
  received_at DateTime64(6, 'UTC') COMMENT 'When the broker received the newest reading',
  seen_at     DateTime64(6, 'UTC') COMMENT 'The last receipt of any reading of this metric, late ones included'
)
AS SELECT device, metric, tupleElement(whole, 'ts') AS ts, tupleElement(whole, 'kind') AS kind,
       if(kind IN ('string', 'null'), NULL, tupleElement(whole, 'value')) AS value,
       tupleElement(whole, 'value_str') AS value_str, tupleElement(whole, 'received_at') AS received_at, seen_at
FROM (SELECT device, metric, materialize(newest) AS whole, seen_at FROM telemetry_internal.state FINAL)
COMMENT 'One row for each device and metric: its newest reading';

-- Per minute, hour and day (UTC) of the reading's time: how many numeric readings, their average, least and greatest.
CREATE OR REPLACE VIEW telemetry.minutely
(
  device   LowCardinality(String) COMMENT 'The device',
  metric   LowCardinality(String) COMMENT 'The metric',
  bucket   DateTime('UTC') COMMENT 'Start of the minute of the readings'' time, UTC',
  readings UInt64 COMMENT 'Numeric readings of the minute',
  avg      Float64 COMMENT 'Their average',
  min      Float64 COMMENT 'The least of them',
  max      Float64 COMMENT 'The greatest of them'
)
AS SELECT m.device AS device, m.metric AS metric, m.bucket AS bucket, sum(m.readings) AS readings,
       sum(m.value_sum) / sum(m.readings) AS avg, min(m.value_min) AS min, max(m.value_max) AS max
FROM telemetry_internal.readings_1m AS m
GROUP BY metric, device, bucket
COMMENT 'Numeric readings of each minute: how many, their average, least and greatest';

CREATE OR REPLACE VIEW telemetry.hourly
(
  device   LowCardinality(String) COMMENT 'The device',
  metric   LowCardinality(String) COMMENT 'The metric',
  bucket   DateTime('UTC') COMMENT 'Start of the hour of the readings'' time, UTC',
  readings UInt64 COMMENT 'Numeric readings of the hour',
  avg      Float64 COMMENT 'Their average',
  min      Float64 COMMENT 'The least of them',
  max      Float64 COMMENT 'The greatest of them'
)
AS SELECT h.device AS device, h.metric AS metric, h.bucket AS bucket, sum(h.readings) AS readings,
       sum(h.value_sum) / sum(h.readings) AS avg, min(h.value_min) AS min, max(h.value_max) AS max
FROM telemetry_internal.readings_1h AS h
GROUP BY metric, device, bucket
COMMENT 'Numeric readings of each hour: how many, their average, least and greatest';

CREATE OR REPLACE VIEW telemetry.daily
(
  device   LowCardinality(String) COMMENT 'The device',
  metric   LowCardinality(String) COMMENT 'The metric',
  bucket   Date COMMENT 'The day of the readings'' time, UTC',
  readings UInt64 COMMENT 'Numeric readings of the day',
  avg      Float64 COMMENT 'Their average',
  min      Float64 COMMENT 'The least of them',
  max      Float64 COMMENT 'The greatest of them'
)
AS SELECT h.device AS device, h.metric AS metric, toDate(h.bucket) AS bucket, sum(h.readings) AS readings,
       sum(h.value_sum) / sum(h.readings) AS avg, min(h.value_min) AS min, max(h.value_max) AS max
FROM telemetry_internal.readings_1h AS h
GROUP BY metric, device, bucket
COMMENT 'Numeric readings of each day (UTC): how many, their average, least and greatest';
