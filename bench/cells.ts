/** What is measured: the shapes of load, spread over the devices or most of it on one. Pure. */
import type { LoadOrder } from './load-messages.ts'

export interface Shape {
  readonly name: string
  readonly connections: number
  readonly window: number
  readonly devices: number
}

/** burst: gateways that empty their buffers. trickle: what devices do when nothing is wrong, all at once. */
export const SHAPES: readonly [Shape, Shape] = [
  { name: 'burst', connections: 50, window: 50, devices: 1_000 },
  { name: 'trickle', connections: 500, window: 1, devices: 500 },
]
export const KEYS = ['spread', 'hot'] as const
export type Key = (typeof KEYS)[number]

export const HOT_SHARE = 0.8

export interface Cell {
  readonly shape: Shape
  readonly key: Key
}

/** `name` is `burst-spread` and so on; an empty selection takes all. */
export function selectCells(only: readonly string[]): Cell[] {
  const picks = (names: readonly string[]) => names.filter(name => only.includes(name))
  const shapes = picks(SHAPES.map(shape => shape.name))
  const keys = picks(KEYS)
  return SHAPES.filter(shape => shapes.length === 0 || shapes.includes(shape.name)).flatMap(shape =>
    KEYS.filter(key => keys.length === 0 || keys.includes(key)).map(key => ({ shape, key })),
  )
}

export function cellName({ shape, key }: Cell): string {
  return `${shape.name}, ${key === 'hot' ? '80 % on one device' : 'spread'}`
}

export interface Timing {
  readonly rate: number | null
  readonly warmupMs: number
  readonly measureMs: number
}

export function orderOf(cell: Cell, port: number, firstCounter: number, timing: Timing): LoadOrder {
  const { connections, window, devices, name } = cell.shape
  return {
    port,
    devices: Array.from({ length: devices }, (_, n) => `bench-${name}-${String(n).padStart(4, '0')}`),
    connections,
    window,
    hotShare: cell.key === 'hot' ? HOT_SHARE : 0,
    firstCounter,
    ...timing,
  }
}
