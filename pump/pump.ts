/**
 * The pump: the durable log between ingest and the writers, and the door of this folder.
 *
 * The log is divided into partitions (one on this machine; Kafka has several); each is a row of chunks, and each chunk
 * has a position: a whole number that grows by one. A chunk is what one append made durable: lines of `model/message.ts`.
 * The order of readings across chunks means nothing ([G4]); the order of chunks of one partition never changes.
 *
 * Three users, each with the part it needs: ingest appends (`PumpInlet`), a writer claims partitions and commits
 * (`PumpOutlet`), and readers, `verify` and metrics look without touching (`PumpView`). They may be different processes.
 *
 * All times of this folder are ms since 1970 UTC. What stands in the lines is the lines' own: their format stands beside
 * them, in each chunk.
 */
import type { LineFormat } from '../model/message.ts'

/** A message that ingest refused, kept as it came. */
export interface Refused {
  readonly receivedAt: number
  readonly device: string
  readonly topic: string
  readonly reason: string
  /** What was wrong, for a person. */
  readonly detail: string
  readonly payload: Uint8Array
  /** How long all of the payload was, when `payload` is only its beginning. */
  readonly payloadBytes?: number
}

/** A message that was taken for one sent again: durable before, hence acknowledged and not stored a second time. */
export interface Repeated {
  readonly receivedAt: number
  readonly device: string
  readonly topic: string
  /** `dup`: it came with DUP=1. `other_connection`: another connection had brought the original. */
  readonly why: 'dup' | 'other_connection'
  readonly payload: Uint8Array
}

/**
 * What became of the messages that were received since the batch before, each in one of these: its own line, `repeated`,
 * `quarantined`, or let go. So `received` = the batch's `messages` + `repeated` + `quarantined` + the sum of `letGo`; the
 * log does not enforce it, `surgetank verify` checks it [G7].
 */
export interface MessageCounts {
  readonly received: number
  readonly repeated: number
  /** As many as the batch has refused messages. */
  readonly quarantined: number
  /**
   * By reason, those that are neither stored nor kept: `qos0_overload`, `presence`. A reason is a fixed word of small
   * letters, digits and `_`, 32 at most; 16 reasons at most.
   */
  readonly letGo: Readonly<Record<string, number>>
}

/** The most of a batch, UTF-8 bytes of its lines and of its refused payloads; one message alone may be larger. */
export const BATCH_BYTES_MAX = 4 * 1024 * 1024

/** The most repetitions that a batch brings along to be listed; all of them are counted. */
export const REPEATED_OF_BATCH_MAX = 64

/** What one group commit makes durable. All of one UTC day of `receivedAt`: an insert must stay in one table partition. */
export interface Batch {
  /**
   * Lines in order of arrival, UTF-8, of the format LINE_FORMAT, with a newline between them. Must not change until the
   * append has ended.
   */
  readonly lines: Buffer
  /** How many lines; 0 when none came. Such a batch is appended all the same for what else is in it. */
  readonly messages: number
  /** Readings in all lines. */
  readonly readings: number
  /** The oldest and newest `receivedAt` of the lines, ms. */
  readonly firstReceivedAt: number
  readonly lastReceivedAt: number
  readonly refused: readonly Refused[]
  readonly counts: MessageCounts
  /** To be listed: a sample of the repetitions, REPEATED_OF_BATCH_MAX at most. */
  readonly repeated: readonly Repeated[]
}

/** A log whose last receipt is further ahead of the clock was written by a clock that was wrong, or this one is. */
export const RECEIPT_AHEAD_MS_MAX = 60_000

export interface PumpInlet {
  /**
   * Makes the batch durable, whole, and once [G1]; resolves only then. One call at a time: the caller collects the next
   * batch meanwhile. Rejects with `log_unavailable` (fate `retry`) when the log takes nothing: its disk is full, it is at its
   * cap with readings that are not yet in ClickHouse, or it is out of reach. The caller must then append the very same batch
   * again, and no other before it: whether an attempt that failed has reached a log in another process is for the adapter
   * to find out. Never resolves for a batch that is not durable; only the list of repetitions may lack what was to be added.
   */
  append(batch: Batch): Promise<void>
  /**
   * The newest `lastReceivedAt` that the log has held, 0 when it never held a line: known as soon as the inlet is open, and
   * growing with its appends. A receipt clock begins above it. Of a log in Kafka, the newest of the last thousands of messages
   * that it holds.
   */
  readonly newestReceivedAt: number
  /** The newest lines of the log, newest chunk last, about as many as asked for: to know what was sent again. */
  tail(messagesMax: number): Promise<Chunk[]>
  /**
   * Chunks that other inlets appended since the last call, or since `tail`, up to the log's end as it is at this call; of a
   * great many only the newest: about as many as `tail` gives, own ones counted in. Never yields what this inlet appended.
   * Rejects with `log_unavailable`.
   */
  appendedByOthers(): AsyncIterable<readonly Chunk[]>
  close(): Promise<void>
}

export interface Chunk {
  readonly partition: number
  readonly position: number
  /** Of its lines: how `parseLines` reads them. */
  readonly format: LineFormat
  /** How many lines; a chunk of none keeps what was counted, or is a record that somebody else put into the log. */
  readonly messages: number
  readonly readings: number
  readonly firstReceivedAt: number
  readonly lastReceivedAt: number
  /** Newline-separated lines; its checksum was verified when it was read. */
  readonly lines: Buffer
  /** As the batch had them; of a chunk of format 1, which did not count, `received` is `messages` and the rest 0. */
  readonly counts: MessageCounts
}

/** A range of chunks that is about to be inserted: from the committed position up to, not including, `to`. */
export interface Plan {
  readonly to: number
  /** `whole`: one insert. `bisected`: ClickHouse refused a row of it, and parts were inserted under their own tokens. */
  readonly mode: 'whole' | 'bisected'
}

/** A row that ClickHouse refuses, kept with the reason: a dead letter. */
export interface DeadLetter {
  readonly source: string
  readonly position: number
  /** The reading's place in its chunk. */
  readonly index: number
  readonly device: string
  readonly receivedAt: number
  readonly reason: string
  readonly detail: string
  /** The line it came in, in the form of the log. */
  readonly line: string
}

/**
 * The right to write one partition, held by one writer at a time, also across processes.
 * A commit that another writer's claim has overtaken rejects with `log_claim_lost` and changes nothing.
 */
export interface Claim {
  readonly partition: number
  /** Names this partition of this very log, also after the log was made anew: stands in each row and in each token. */
  readonly source: string
  /**
   * Where the last commit left it, or the beginning of the log when none is known: everything before `position` is in ClickHouse
   * or a dead letter. What lies from there on may be, too: a log in another process can lose the last commits, or all.
   */
  readonly position: number
  /** The plan that was open when the claim was taken or last committed. */
  readonly plan: Plan | null
  /** Fires when the claim is lost: stop what is under way and drop the claim. */
  readonly lost: AbortSignal
  /** The position of the oldest chunk that the log holds, or its end when it holds none. */
  begins(): Promise<number>
  /** The position that the next chunk will have. */
  ends(): Promise<number>
  /**
   * Chunks from `from` on, in order, at least one when there is any: none only at the log's end. The first may lie after `from` when
   * retention cut the log.
   */
  read(from: number, limits: ReadLimits): Promise<Chunk[]>
  /** Resolves when there is a chunk at or after `position`, or after `waitMs`. */
  wait(position: number, waitMs: number): Promise<void>
  /** Durably moves the claim; `deadLetters` are kept in the same step. Repeating a commit is harmless. */
  commit(position: number, plan: Plan | null, deadLetters?: readonly DeadLetter[]): Promise<void>
}

export interface ReadLimits {
  readonly chunksMax: number
  readonly bytesMax: number
}

export interface PumpOutlet {
  /**
   * Claims partitions and runs `work` once for each, until `work` returns or the claim is lost; then claims again.
   * A rejection of `work` with fate `stop` closes the outlet and rejects `ended`; any other is followed by a new claim
   * after a pause.
   */
  consume(work: (claim: Claim) => Promise<void>): Consumption
  close(): Promise<void>
}

export interface Consumption {
  readonly ended: Promise<void>
  /** Ends the claims after the step under way; resolves when `work` has returned. */
  stop(): Promise<void>
}

/** Where a partition stands. */
export interface PartitionPlace {
  readonly partition: number
  readonly source: string
  /** Position of the oldest chunk still held, of the next to be written, and up to where all is written to ClickHouse. */
  readonly first: number
  readonly end: number
  readonly committed: number
  readonly plan: Plan | null
}

/** What a partition holds and held. All numbers are since the log was made, and hold at one moment. */
export interface PartitionBooks extends PartitionPlace {
  /** Readings that were ever appended; those of them before `committed`; those that became dead letters. */
  readonly readingsAppended: number
  readonly readingsCommitted: number
  readonly deadLetters: number
  /** `firstReceivedAt` of the oldest chunk that is not committed; null when there is none. */
  readonly oldestUnwrittenAt: number | null
}

/**
 * What became of every message that was received: `received` = `accepted` + `repeated` + `quarantined`, all four + the sum
 * of `letGo`, at any moment [G7].
 */
export interface MessageBooks {
  /**
   * Since when messages are counted; null: since the log was made. A log that began in format 1 knows of the messages before
   * only those that were quarantined, and they are counted in where it knows their number.
   */
  readonly since: number | null
  readonly received: number
  /** Those that have a line in the log. */
  readonly accepted: number
  readonly repeated: number
  /** `evicted`: made room for newer ones. Nothing can retry or drop one yet. */
  readonly quarantined: {
    readonly waiting: number
    readonly retried: number
    readonly dropped: number
    readonly evicted: number
  }
  /** By reason; neither stored nor kept. */
  readonly letGo: Readonly<Record<string, number>>
}

export interface PumpBooks {
  readonly partitions: readonly PartitionBooks[]
  readonly messages: MessageBooks
  /** Messages that were ever quarantined, and how many of them are still kept. */
  readonly quarantined: number
  readonly quarantinedKept: number
  /** Bytes of the chunks held, of those not yet committed, and the most that the log may hold. */
  readonly bytes: number
  readonly bytesUnwritten: number
  readonly bytesMax: number
}

/** How far the writers are behind: cheap enough to be asked every second. */
export interface PumpLag {
  /** Readings that are not yet in ClickHouse; an estimate where the log cannot count without reading it all. */
  readonly readings: number
  /** `firstReceivedAt` of the oldest chunk that is not committed; null when there is none. */
  readonly oldestUnwrittenAt: number | null
  /** Bytes of the chunks held, of those not yet committed, and the most that the log may hold; the first two may be estimates. */
  readonly bytes: number
  readonly bytesUnwritten: number
  readonly bytesMax: number
}

/** Quarantined messages and dead letters, as `surgetank quarantine` lists them. */
export interface QuarantineEntry {
  /** `m<number>` for a message refused at ingest, `r<number>` for a reading refused by ClickHouse. */
  readonly id: string
  readonly receivedAt: number
  readonly device: string
  /** The topic, or the place in the log. */
  readonly where: string
  readonly reason: string
  readonly detail: string
  readonly bytes: Uint8Array
  /** How long the whole payload or line was: more than `bytes` when only the beginning was kept. */
  readonly bytesTotal: number
}

/** A repetition, as `surgetank repeated` lists it. */
export interface RepeatedEntry extends Omit<Repeated, 'payload'> {
  /** The beginning of the payload, REPEATED_PAYLOAD_BYTES_MAX at most, and how long all of it was. */
  readonly payload: Uint8Array
  readonly payloadBytes: number
}

export const REPEATED_PAYLOAD_BYTES_MAX = 4 * 1024

export interface PumpView {
  /** Every partition, in order. */
  places(): Promise<PartitionPlace[]>
  lag(): Promise<PumpLag>
  /** Exact; may have to read all that is not yet in ClickHouse. */
  books(): Promise<PumpBooks>
  /** The position of the oldest chunk of a partition that was appended at or after a time (ms since 1970 UTC), or the end. */
  positionAt(partition: number, appendedAt: number): Promise<number>
  /** Chunks from `from` on, in order; may be empty. Never more than the limits but for one chunk. */
  read(partition: number, from: number, limits: ReadLimits): Promise<Chunk[]>
  /** As that of the inlet. */
  newestReceivedAt(): Promise<number>
  /** Newest first. */
  quarantine(entriesMax: number): Promise<QuarantineEntry[]>
  quarantineEntry(id: string): Promise<QuarantineEntry | null>
  /** Of a device, or of all: the newest repetitions that are still listed, newest first. */
  repeated(entriesMax: number, device: string | null): Promise<RepeatedEntry[]>
  close(): Promise<void>
}
