/**
 * The devices in order of their ids, so that a page costs what it shows and never a sort.
 *
 * A row of blocks of at most 512 device numbers, each block in order and all of one block before the next. Adding costs two
 * binary searches (about 20 comparisons of ids for a million devices) and moves at most 2 kB, once in the life of a device: it is done when
 * the device is first listed, 1 to 2 µs, not when a page is asked for. The order is bytewise;
 * three times as much once an id holds what UTF-16 orders in another way.
 */

import { compareBytewise } from './bytewise.ts'

const BLOCK_DEVICES = 512

/** Below these units `<` of UTF-16 is the order of the bytes, and far cheaper. */
const IN_ANOTHER_ORDER = /[\ud800-\uffff]/

interface Block {
  readonly devices: Uint32Array
  size: number
}

export interface SortedDevices {
  add(index: number): void
  /**
   * Calls `visit` with the devices after `after` in order, until it returns false, or the end, or `visitsMax`. Returns where
   * to go on, or null when it came to the end or was told to stop.
   */
  scan(after: string | null, visitsMax: number, visit: (index: number) => boolean): string | null
}

export function openSortedDevices(id: (index: number) => string): SortedDevices {
  const blocks: Block[] = []
  /** No id holds a unit of another order. */
  let areSimple = true

  return { add, scan }

  function add(index: number) {
    const device = id(index)
    areSimple &&= !IN_ANOTHER_ORDER.test(device)
    const at = blockFor(device)
    const block = blocks[at]
    if (block === undefined) {
      blocks.push(newBlock(Uint32Array.of(index)))
      return
    }
    const place = firstAfter(block, device)
    block.devices.copyWithin(place + 1, place, block.size)
    block.devices[place] = index
    block.size++
    if (block.size === BLOCK_DEVICES) split(at, block)
  }

  /** Ids that come in order, as from a rebuild, leave full blocks behind: only the last block is then split unevenly. */
  function split(at: number, block: Block) {
    const kept = at === blocks.length - 1 ? BLOCK_DEVICES - 32 : BLOCK_DEVICES / 2
    blocks.splice(at + 1, 0, newBlock(block.devices.subarray(kept, block.size)))
    block.size = kept
  }

  function scan(after: string | null, visitsMax: number, visit: (index: number) => boolean): string | null {
    let at = after === null ? 0 : blockFor(after)
    const start = blocks[at]
    let place = after === null || start === undefined ? 0 : firstAfter(start, after)
    let visits = 0
    let last: string | null = null
    for (; at < blocks.length; at++, place = 0) {
      const block = blocks[at] as Block
      for (; place < block.size; place++) {
        if (visits === visitsMax) return last
        const index = block.devices[place] as number
        visits++
        if (!visit(index)) return null
        if (visits === visitsMax) last = id(index)
      }
    }
    return null
  }

  /** The last block that begins at or before `device`, or the first. */
  function blockFor(device: string): number {
    let low = 0
    let high = blocks.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (isUpTo(id((blocks[middle] as Block).devices[0] as number), device)) low = middle + 1
      else high = middle
    }
    return Math.max(low - 1, 0)
  }

  function firstAfter(block: Block, device: string): number {
    let low = 0
    let high = block.size
    while (low < high) {
      const middle = (low + high) >>> 1
      if (isUpTo(id(block.devices[middle] as number), device)) low = middle + 1
      else high = middle
    }
    return low
  }

  /** While the ids here are simple, `<` tells also where any other text stands among them. */
  function isUpTo(held: string, text: string): boolean {
    return areSimple ? held <= text : compareBytewise(held, text) <= 0
  }
}

function newBlock(from: Uint32Array): Block {
  const devices = new Uint32Array(BLOCK_DEVICES)
  devices.set(from)
  return { devices, size: from.length }
}
