/**
 * The device table: id → number, and by number the columns that every device has. 25 bytes a device in chunks that never
 * move, beside the id itself and its place in the map.
 *
 * Invariants: numbers are given in order and never reused; a device never leaves. A device is *listed* once something of it
 * was merged; before that it is only claimed.
 */
import { ownText } from '../model/own-text.ts'

const CHUNK_BITS = 16
const CHUNK_MASK = (1 << CHUNK_BITS) - 1

const LISTED = 1
const ONLINE = 2

interface Chunk {
  readonly lastSeen: Float64Array
  readonly presenceAt: Float64Array
  readonly firstSlot: Uint32Array
  readonly slots: Uint16Array
  readonly flags: Uint8Array
}

export interface DeviceTable {
  readonly devices: number
  readonly listed: number
  readonly online: number
  /** The device's number, or -1. */
  find(device: string): number
  /** Adds a device that is not there. */
  add(device: string): number
  id(index: number): string
  /** The block of the device's slots: its first slot, and how many there are. */
  firstSlot(index: number): number
  slots(index: number): number
  setSlots(index: number, first: number, count: number): void
  /** Moves the time the device was last heard of, µs, if `at` is newer; true when it was. */
  see(index: number, at: number): boolean
  lastSeen(index: number): number
  /** Keeps the newer presence, `at` in ms, offline at the same; true when it changed. */
  setPresence(index: number, online: boolean, at: number): boolean
  isOnline(index: number): boolean
  /** Lists the device; true when it was not listed before. */
  list(index: number): boolean
  isListed(index: number): boolean
}

export function openDeviceTable(): DeviceTable {
  const numbers = new Map<string, number>()
  const ids: string[] = []
  const chunks: Chunk[] = []
  let listed = 0
  let online = 0
  let lastFound = ''
  let lastIndex = -1

  return {
    get devices() {
      return ids.length
    },
    get listed() {
      return listed
    },
    get online() {
      return online
    },
    find,
    add,
    id: index => ids[index] as string,
    firstSlot: index => chunkOf(index).firstSlot[index & CHUNK_MASK] as number,
    slots: index => chunkOf(index).slots[index & CHUNK_MASK] as number,
    setSlots,
    see,
    lastSeen: index => chunkOf(index).lastSeen[index & CHUNK_MASK] as number,
    setPresence,
    isOnline: index => hasFlag(index, ONLINE),
    list,
    isListed: index => hasFlag(index, LISTED),
  }

  /** A message asks once for each of its metrics, with the same string: that is answered without a look-up. */
  function find(device: string): number {
    if (device !== lastFound) {
      lastIndex = numbers.get(device) ?? -1
      lastFound = device
    }
    return lastIndex
  }

  function add(device: string): number {
    const index = ids.length
    const id = ownText(device)
    numbers.set(id, index)
    lastFound = id
    lastIndex = index
    ids.push(id)
    if (chunks.length <= index >>> CHUNK_BITS) chunks.push(newChunk())
    return index
  }

  function setSlots(index: number, first: number, count: number) {
    const chunk = chunkOf(index)
    chunk.firstSlot[index & CHUNK_MASK] = first
    chunk.slots[index & CHUNK_MASK] = count
  }

  function see(index: number, at: number): boolean {
    const { lastSeen } = chunkOf(index)
    if (at <= (lastSeen[index & CHUNK_MASK] as number)) return false
    lastSeen[index & CHUNK_MASK] = at
    return true
  }

  function setPresence(index: number, isOnline: boolean, at: number): boolean {
    const chunk = chunkOf(index)
    const place = index & CHUNK_MASK
    const heldAt = chunk.presenceAt[place] as number
    const wasOnline = hasFlag(index, ONLINE)
    if (at < heldAt || (at === heldAt && isOnline)) return false
    chunk.presenceAt[place] = at
    if (isOnline !== wasOnline) {
      chunk.flags[place] = (chunk.flags[place] as number) ^ ONLINE
      if (hasFlag(index, LISTED)) online += isOnline ? 1 : -1
    }
    return isOnline !== wasOnline
  }

  function list(index: number): boolean {
    if (hasFlag(index, LISTED)) return false
    const { flags } = chunkOf(index)
    flags[index & CHUNK_MASK] = (flags[index & CHUNK_MASK] as number) | LISTED
    listed++
    if (hasFlag(index, ONLINE)) online++
    return true
  }

  function hasFlag(index: number, flag: number): boolean {
    return ((chunkOf(index).flags[index & CHUNK_MASK] as number) & flag) !== 0
  }

  function chunkOf(index: number): Chunk {
    return chunks[index >>> CHUNK_BITS] as Chunk
  }
}

function newChunk(): Chunk {
  const devices = CHUNK_MASK + 1
  return {
    lastSeen: new Float64Array(devices).fill(Number.NEGATIVE_INFINITY),
    presenceAt: new Float64Array(devices).fill(Number.NEGATIVE_INFINITY),
    firstSlot: new Uint32Array(devices),
    slots: new Uint16Array(devices),
    flags: new Uint8Array(devices),
  }
}
