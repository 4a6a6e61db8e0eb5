/**
 * The space in this process: columns of numbers instead of objects, about 300 bytes for a device with five metrics, and
 * nothing that the garbage collector must walk per reading (docs: `device-table.ts`, `metric-slots.ts`).
 *
 * Invariants: see `space.ts`. Bounds: claims keep devices and metrics to their limits. A merge refuses nothing that was
 * accepted before (readings of the log, after a setting was lowered, say), up to what the tables can hold; beyond
 * that (`claims.ts`) the state leaves a reading out.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { DeviceState, MetricState, Presence } from '../model/device-state.ts'
import type { Message } from '../model/message.ts'
import { US_PER_MS } from '../model/time.ts'
import { compareBytewise } from './bytewise.ts'
import { openClaims } from './claims.ts'
import { openDeviceTable } from './device-table.ts'
import { openMetricNames } from './metric-names.ts'
import { openMetricSlots } from './metric-slots.ts'
import { patternOf } from './search-pattern.ts'
import { openSortedDevices } from './sorted-devices.ts'
import type { PageQuery, Rebuild, Space } from './space.ts'
import { openStrangers } from './strangers.ts'
import { openWatchers } from './watchers.ts'

export interface MemorySpaceOptions {
  /** Devices that may be claimed. */
  readonly devicesMax: number
}

/** Devices looked at before other work gets its turn: under 5 ms. */
const SCAN_DEVICES = 20_000

const NEVER = new AbortController().signal

export function openMemorySpace({ devicesMax }: MemorySpaceOptions): Space {
  const table = openDeviceTable()
  const names = openMetricNames()
  const slots = openMetricSlots()
  const sorted = openSortedDevices(table.id)
  const strangers = openStrangers()
  const watchers = openWatchers<number>()
  const claims = openClaims({ table, names, slots, devicesMax, added })
  let warm = false

  return {
    merge,
    trackUnmerged: () => {},
    settled: async () => {},
    mergePresence,
    claimMetric: claims.claim,
    get,
    getMany,
    page,
    counts,
    watch,
    get warm() {
      return warm
    },
    claimRebuild,
    claimLostUnits: async () => null,
    close,
  }

  async function merge(messages: readonly Message[]): Promise<void> {
    for (const message of messages) mergeMessage(message)
  }

  function mergeMessage({ device, receivedAt, readings }: Message) {
    const index = claims.findOrAdd(device)
    if (index < 0) return
    let changed = table.see(index, readings.at(-1)?.receivedAt ?? receivedAt)
    let hint = 0
    for (const { metric, ts, receivedAt, value } of readings) {
      const slot = claims.slotOf(index, metric, hint)
      if (slot < 0) continue
      hint = slot - table.firstSlot(index) + 1
      if (slots.merge(slot, ts, receivedAt, value)) changed = true
    }
    if (listNow(index)) changed = true
    if (changed && watchers.any) watchers.mark(index)
  }

  function added(index: number) {
    const presence = strangers.take(table.id(index))
    if (presence !== null) applyPresence(index, presence)
  }

  async function mergePresence(changes: readonly Presence[]): Promise<void> {
    for (const change of changes) {
      const index = table.find(change.device)
      if (index < 0) strangers.merge(change)
      else applyPresence(index, change)
    }
  }

  function applyPresence(index: number, { online, at }: Presence) {
    const came = table.setPresence(index, online, at)
    const seen = table.see(index, at * US_PER_MS)
    const listed = listNow(index)
    if ((came || seen || listed) && watchers.any) watchers.mark(index)
  }

  function listNow(index: number): boolean {
    if (!table.list(index)) return false
    sorted.add(index)
    return true
  }

  async function get(device: string): Promise<DeviceState | null> {
    const index = table.find(device)
    return index < 0 || !table.isListed(index) ? null : stateOf(index)
  }

  async function getMany(devices: readonly string[]): Promise<DeviceState[]> {
    const known = devices.map(table.find).filter(index => index >= 0 && table.isListed(index))
    return known.map(stateOf)
  }

  function stateOf(index: number): DeviceState {
    const first = table.firstSlot(index)
    const metrics: MetricState[] = []
    for (let at = 0; at < table.slots(index); at++) {
      const held = slots.read(first + at)
      if (held === null) continue
      metrics.push({ metric: names.name(held.name), ts: held.ts, receivedAt: held.receivedAt, value: held.value })
    }
    metrics.sort((a, b) => compareBytewise(a.metric, b.metric))
    return { device: table.id(index), online: table.isOnline(index), lastSeen: table.lastSeen(index), metrics }
  }

  /** Costs the devices it looks at: those of the page, unless `search` or `online` pass over many (about 0.1 s for a million). */
  async function page({ after, limit, search, online }: PageQuery): Promise<DeviceState[]> {
    const found: DeviceState[] = []
    const pattern = search === null ? null : patternOf(search)
    const visit = (index: number) => {
      if (online !== null && table.isOnline(index) !== online) return true
      if (pattern?.test(table.id(index)) === false) return true
      found.push(stateOf(index))
      return found.length < limit
    }
    let from = after
    do {
      from = limit > 0 ? sorted.scan(from, SCAN_DEVICES, visit) : null
      if (from !== null) await nextTurn()
    } while (from !== null)
    return found
  }

  async function counts(): Promise<{ devices: number; online: number }> {
    return { devices: table.listed, online: table.online }
  }

  function watch(everyMs: number, changed: (devices: readonly string[]) => void): () => void {
    return watchers.watch(everyMs, indexes => changed(Array.from(indexes, table.id)))
  }

  /** Nobody else can have it, and nothing empties it. */
  async function claimRebuild(): Promise<Rebuild | null> {
    if (warm) return null
    return { lost: NEVER, finish, release: async () => {} }
  }

  async function finish(): Promise<void> {
    warm = true
  }

  async function close(): Promise<void> {
    watchers.close()
  }
}
