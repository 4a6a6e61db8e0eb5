/**
 * What a process has taken and not yet brought to Redis, of one shard: by device, the newest only. A device that sends a
 * thousand times between two flushes costs one entry, so memory is bounded by devices, not by readings.
 *
 * Invariants: first in, first out, also after a flush that failed; merging is that of [G4], so nothing depends on it. Bounds:
 * devices and bytes; at the bound, what would make it larger is let go and counted, and the caller sees to a rebuild ([G5]).
 */
import type { Message } from '../model/message.ts'
import { isNewer, type Moment } from '../model/reading.ts'
import { encodeMoment, encodeTime, fieldOf } from './redis-state.ts'

export interface Entry {
  readonly device: string
  /** The newest receipt, µs; null when no reading came. */
  heardAt: number | null
  readonly readings: Map<string, Moment>
  presence: { readonly online: boolean; readonly at: number } | null
  claimed: boolean
  bytes: number
  /** When the oldest of it was taken, ms since 1970 UTC. */
  since: number
  /** A part of it may be in Redis, and nobody was told of the change. */
  untold: boolean
}

export interface BufferBounds {
  readonly devicesMax: number
  readonly bytesMax: number
}

export interface RedisBuffer {
  readonly size: number
  /** When the oldest entry was taken; null when there is none. */
  readonly since: number | null
  /** Each returns how many readings it had to let go. */
  merge(message: Message): number
  mergePresence(device: string, online: boolean, at: number, claimed: boolean): boolean
  claim(device: string): void
  /** Takes out the oldest entries, up to the limits but at least one. */
  take(limits: { readonly devicesMax: number; readonly readingsMax: number }): Entry[]
  /** Puts back what was taken, before all others. Returns how many of them had come in anew meanwhile. */
  putBack(entries: readonly Entry[]): number
}

/** About what V8 takes for an entry, and for one reading with its name, of five: measured as a whole. */
const ENTRY_BYTES = 400
const READING_BYTES = 150

export function openRedisBuffer({ devicesMax, bytesMax }: BufferBounds, clock: () => number = Date.now): RedisBuffer {
  let entries = new Map<string, Entry>()
  let bytes = 0

  return {
    get size() {
      return entries.size
    },
    get since() {
      for (const { since } of entries.values()) return since
      return null
    },
    merge,
    mergePresence,
    claim,
    take,
    putBack,
  }

  function merge(message: Message): number {
    const { device, receivedAt, readings } = message
    const entry = entryOf(device)
    if (entry === null) return readings.length
    let letGo = 0
    const heardAt = readings.at(-1)?.receivedAt ?? receivedAt
    entry.heardAt = Math.max(entry.heardAt ?? heardAt, heardAt)
    for (const { metric, ts, receivedAt, value } of readings) {
      if (!mergeReading(entry, metric, { ts, receivedAt, value })) letGo++
    }
    return letGo
  }

  function mergeReading(entry: Entry, metric: string, moment: Moment): boolean {
    const held = entry.readings.get(metric)
    if (held !== undefined && !isNewer(moment, held)) return true
    if (held === undefined) {
      const more = READING_BYTES + 2 * metric.length + sizeOf(moment)
      if (bytes + more > bytesMax) return false
      entry.bytes += more
      bytes += more
    } else {
      const more = sizeOf(moment) - sizeOf(held)
      entry.bytes += more
      bytes += more
    }
    entry.readings.set(metric, moment)
    return true
  }

  function mergePresence(device: string, online: boolean, at: number, claimed: boolean): boolean {
    const entry = entryOf(device)
    if (entry === null) return false
    if (claimed) entry.claimed = true
    const held = entry.presence
    if (held === null || at > held.at || (at === held.at && !online)) entry.presence = { online, at }
    return true
  }

  function claim(device: string): void {
    const entry = entryOf(device)
    if (entry !== null) entry.claimed = true
  }

  function entryOf(device: string): Entry | null {
    const held = entries.get(device)
    if (held !== undefined) return held
    if (entries.size >= devicesMax || bytes + ENTRY_BYTES > bytesMax) return null
    const entry: Entry = {
      device,
      heardAt: null,
      readings: new Map(),
      presence: null,
      claimed: false,
      bytes: ENTRY_BYTES,
      since: clock(),
      untold: false,
    }
    entries.set(device, entry)
    bytes += ENTRY_BYTES
    return entry
  }

  function take({ devicesMax, readingsMax }: { readonly devicesMax: number; readonly readingsMax: number }): Entry[] {
    const taken: Entry[] = []
    let readings = 0
    for (const entry of entries.values()) {
      readings += entry.readings.size
      if (taken.length > 0 && (taken.length === devicesMax || readings > readingsMax)) break
      taken.push(entry)
    }
    for (const { device, bytes: freed } of taken) {
      entries.delete(device)
      bytes -= freed
    }
    return taken
  }

  function putBack(taken: readonly Entry[]): number {
    const later = entries
    entries = new Map(taken.map(entry => [entry.device, entry]))
    for (const entry of taken) bytes += entry.bytes
    let met = 0
    for (const entry of later.values()) {
      const before = entries.get(entry.device)
      if (before === undefined) entries.set(entry.device, entry)
      else {
        join(before, entry)
        met++
      }
    }
    return met
  }

  /** Both were within the bounds when they were taken: what they are together is at most a batch above them. */
  function join(into: Entry, entry: Entry): void {
    const { heardAt, readings, presence, claimed } = entry
    bytes -= entry.bytes + into.bytes
    if (heardAt !== null) into.heardAt = Math.max(into.heardAt ?? heardAt, heardAt)
    for (const [metric, moment] of readings) {
      const held = into.readings.get(metric)
      if (held === undefined || isNewer(moment, held)) into.readings.set(metric, moment)
    }
    if (claimed) into.claimed = true
    const held = into.presence
    if (
      presence !== null &&
      (held === null || presence.at > held.at || (presence.at === held.at && !presence.online))
    ) {
      into.presence = presence
    }
    into.bytes = ENTRY_BYTES
    for (const [metric, moment] of into.readings) into.bytes += READING_BYTES + 2 * metric.length + sizeOf(moment)
    bytes += into.bytes
  }
}

function sizeOf({ value }: Moment): number {
  return typeof value === 'string' ? 2 * value.length : typeof value === 'bigint' ? 64 : 0
}

/** The entries as `apply.lua` takes them. */
export function encodeEntries(entries: readonly Entry[]): string {
  return JSON.stringify(entries.map(encodeEntry))
}

function encodeEntry({ device, heardAt, readings, presence, claimed }: Entry): readonly unknown[] {
  let [leastTs, greatestTs] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  const fields: string[] = []
  for (const [metric, moment] of readings) {
    leastTs = Math.min(leastTs, moment.ts)
    greatestTs = Math.max(greatestTs, moment.ts)
    fields.push(fieldOf(metric), encodeMoment(moment))
  }
  const [least, greatest] = fields.length === 0 ? ['', ''] : [encodeTime(leastTs), encodeTime(greatestTs)]
  const heard = heardAt === null ? '' : encodeTime(heardAt)
  const [at, online] = presence === null ? ['', 0] : [String(presence.at), presence.online ? 1 : 0]
  return [device, heard, least, greatest, claimed ? 1 : 0, at, online, fields]
}
