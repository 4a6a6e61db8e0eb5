/**
 * The catalogue of metrics (Prometheus naming; no label ever holds a device). A part imports the ones it counts. The
 * writer process has its own registry; its numbers reach `/metrics` through `manager/`.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

export const registry = new Registry()
collectDefaultMetrics({ register: registry, prefix: 'telemetry_' })

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const COUNTS = [1, 10, 100, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000]

export const metrics = {
  received: counter(
    'telemetry_messages_received_total',
    'PUBLISH packets that were received, and wills that became messages; counted once a second.',
    ['qos'],
  ),
  accepted: counter('telemetry_readings_accepted_total', 'Readings made durable in the log since this start.'),
  acked: counter('telemetry_messages_acked_total', 'PUBACKs and PUBRECs written.'),
  messagesAccepted: counter('telemetry_messages_accepted_total', 'Messages made durable in the log since this start.'),
  repeated: counter(
    'telemetry_messages_repeated_total',
    'Messages sent again of which the log has the original; acknowledged, not stored again.',
  ),
  quarantined: counter('telemetry_messages_quarantined_total', 'Messages refused with a reason and kept.', ['reason']),
  letGo: counter(
    'telemetry_messages_let_go_total',
    'Messages neither stored nor kept: qos0_overload, QoS 0 in overload or while the log is unavailable; presence, statuses, which the state takes; reserved_..., messages to topics that are kept for what is to come; will_overload, wills beyond those that may wait while the log is unavailable.',
    ['reason'],
  ),
  presenceIgnored: counter(
    'telemetry_presence_ignored_total',
    'Presence changes that were not taken at first, and wills that say nothing of presence: too_many_devices and too_many_changes are asked again every second while the connection lives.',
    ['reason'],
  ),
  refusedConnections: counter('telemetry_connections_refused_total', 'Connections refused or closed by a guard.', [
    'reason',
  ]),
  subscriptionsRefused: counter(
    'telemetry_subscriptions_refused_total',
    'Subscriptions answered with 0x80: not_own_command, to anything but the own command topics; too_many, beyond ten; not_kept, while the session cannot be kept.',
    ['reason'],
  ),
  sessionsMoved: counter(
    'telemetry_sessions_moved_total',
    'Clients that another broker may have served before; not_caught_up: that one did not settle, or the log could not be read, in time, so what they send again may be stored twice.',
    ['result'],
  ),
  sessionsTaken: counter(
    'telemetry_sessions_taken_total',
    'Connections closed because another broker serves their client.',
  ),
  openForgotten: counter(
    'telemetry_qos2_forgotten_total',
    'QoS 2 messages between PUBREC and PUBREL that were forgotten for want of room; one that is sent again is stored again.',
  ),
  takeovers: counter(
    'telemetry_takeovers_total',
    'Connections that were served and closed because their client connected anew, here or at another broker.',
  ),
  takeoversSlowed: counter(
    'telemetry_takeovers_slowed_total',
    'Take-overs that had to wait, because the client id is taken over again and again: two devices use it.',
  ),
  sessionsOpened: counter(
    'telemetry_sessions_opened_total',
    'CONNECTs with clean=0: present, the session was kept from an earlier connection; new; not_kept, at the bound or while it cannot be kept, so that the client hears of none next time.',
    ['result'],
  ),
  sessionsKept: gauge(
    'telemetry_sessions_kept',
    'Sessions of clients, connected or away; where several brokers share them, each tells the number of all.',
  ),
  clients: gauge('telemetry_clients_connected', 'MQTT connections.'),
  devices: gauge('telemetry_devices', 'Devices whose state is held.'),
  devicesOnline: gauge('telemetry_devices_online', 'Devices that are online.'),
  heldMessages: gauge('telemetry_inflight_messages', 'Messages received and not yet acknowledged.'),
  heldBytes: gauge(
    'telemetry_inflight_bytes',
    'Bytes that messages take that were received and are not yet acknowledged, their objects included.',
  ),
  backpressure: gauge('telemetry_backpressure_state', '1 for the state that holds.', ['state']),
  receiptAhead: gauge(
    'telemetry_receipt_ahead_seconds',
    'How far the receipts of messages run ahead of the clock: more than a moment means that the clock was set back.',
  ),
  ackSeconds: histogram(
    'telemetry_ack_duration_seconds',
    'From a PUBLISH to its acknowledgement: of the message that waited longest in each group commit.',
    SECONDS,
  ),
  commitSeconds: histogram(
    'telemetry_log_commit_duration_seconds',
    'One group commit of the log, fsync included.',
    SECONDS,
  ),
  commitMessages: histogram('telemetry_log_commit_messages', 'Messages of one group commit.', COUNTS),
  logBytes: gauge('telemetry_log_bytes', 'Bytes that the log holds.'),
  logBytesMax: gauge('telemetry_log_bytes_max', 'Bytes that the log may hold.'),
  logFullSeconds: gauge(
    'telemetry_log_full_seconds',
    'At the rate of the last minutes, seconds until the log is full of unwritten readings; 0 when it is; +Inf when the writers keep up.',
  ),
  foreignRecords: counter(
    'telemetry_log_foreign_records_total',
    'Records in the topic of the log that no surgetank wrote; passed over each time they are read.',
  ),
  logErrors: counter('telemetry_log_errors_total', 'Group commits that failed and are tried again.'),
  mergeErrors: counter(
    'telemetry_state_merge_errors_total',
    'Batches that the state did not take; they are in the log, and a rebuild brings them.',
  ),
  stateLetGo: counter(
    'telemetry_state_readings_let_go_total',
    'Readings that Redis did not take while it was away or refused them; the state is rebuilt with them from the log.',
  ),
  stateUnmergedSeconds: gauge(
    'telemetry_state_unmerged_seconds',
    'Age of the oldest change of the state that Redis has not taken. Alarm on more than a few seconds: Redis is away or out of memory, and the state is not whole.',
  ),
  lagReadings: gauge('telemetry_lag_readings', 'Readings in the log that are not yet in ClickHouse.'),
  lagSeconds: gauge('telemetry_lag_seconds', 'Age of the oldest reading that is not yet in ClickHouse.'),
  persisted: counter(
    'telemetry_readings_persisted_total',
    'Readings inserted into ClickHouse since the writer started.',
  ),
  deadLetters: counter('telemetry_dead_letters_total', 'Readings that ClickHouse refused; kept with the reason.', [
    'reason',
  ]),
  logCut: counter(
    'telemetry_log_cut_total',
    'Chunks that the log lost before they were known to be in ClickHouse. Alarm on any: readings are lost. A restart may count the same ones again.',
  ),
  batches: counter('telemetry_batches_total', 'Inserts into ClickHouse.', ['result']),
  batchReadings: histogram('telemetry_batch_readings', 'Readings of one insert.', COUNTS),
  insertSeconds: histogram('telemetry_insert_duration_seconds', 'One insert into ClickHouse.', SECONDS),
  rehydrating: gauge('telemetry_rehydrating', '1 while the state is being rebuilt after a start.'),
  databaseUp: gauge('telemetry_database_up', '1 while ClickHouse answers.'),
  childUp: gauge('telemetry_child_up', '1 while the child process runs.', ['child']),
  childRestarts: counter('telemetry_child_restarts_total', 'Restarts of child processes.', ['child']),
} as const

for (const result of ['present', 'new', 'not_kept']) metrics.sessionsOpened.inc({ result }, 0)
const RESERVED = ['sys', 'share', 'cmd', 'reply', 'state'].map(topic => `reserved_${topic}`)
const LET_GO = ['qos0_overload', 'presence', 'will_overload', ...RESERVED]

// A reason that nothing was let go for yet is 0 and not missing.
for (const reason of LET_GO) metrics.letGo.inc({ reason }, 0)

function counter(name: string, help: string, labelNames: string[] = []): Counter {
  return new Counter({ name, help, labelNames, registers: [registry] })
}

function gauge(name: string, help: string, labelNames: string[] = []): Gauge {
  return new Gauge({ name, help, labelNames, registers: [registry] })
}

function histogram(name: string, help: string, buckets: number[]): Histogram {
  return new Histogram({ name, help, buckets, registers: [registry] })
}
