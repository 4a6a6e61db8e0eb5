/**
 * The second wall of [G6]: what the kernel holds the engine's process to, whoever gets past the rules for analysts.
 *
 * Three walls, and each stands or not by itself. `launch.ts` raises them before there is an engine, nothing in the process
 * can take them down, and `look.ts` tries them from inside: a wall is said to stand only when it was raised and was met.
 * What the machine does not grant never keeps the engine from starting. docs/decisions/014 says why these.
 */

/** Stands, or why it does not: half a sentence. */
export type Wall = true | string

export interface Walls {
  /** No file is read, written or made beside the engine's own folders, and what it is made of is only read. */
  readonly files: Wall
  /** No connection is made, to any address or socket of any kind. */
  readonly network: Wall
  /** No program is started, and no signal reaches another process. */
  readonly programs: Wall
}

type WallName = keyof Walls

const WALL_NAMES = ['files', 'network', 'programs'] as const satisfies readonly WallName[]

/** What an operator can do about one that is missing. */
export const WALLS_ADVICE =
  'Use Linux 5.19 or newer with Landlock, and a container profile that lets landlock_* and seccomp through. Until then only the rules for analysts keep them from what the engine could reach.'

export function allMissing(why: string): Walls {
  return { files: why, network: why, programs: why }
}

export function allStand(walls: Walls): boolean {
  return WALL_NAMES.every(name => walls[name] === true)
}

export function noneStands(walls: Walls): boolean {
  return WALL_NAMES.every(name => walls[name] !== true)
}

/** Whether what came from another process is what it is to be. */
export function areWalls(told: unknown): told is Walls {
  const walls = told as Partial<Record<WallName, unknown>> | null | undefined
  return WALL_NAMES.every(name => walls?.[name] === true || typeof walls?.[name] === 'string')
}

/** True when one that stood before is missing now. */
export function isLost(before: Walls, now: Walls): boolean {
  return WALL_NAMES.some(name => before[name] === true && now[name] !== true)
}

/** Each as it stood at any time, or as it is now. */
export function everStood(before: Walls, now: Walls): Walls {
  const of = (name: WallName) => before[name] === true || now[name]
  return { files: of('files'), network: of('network'), programs: of('programs') }
}

/** Such as `walled from network and programs; not from files: this kernel has no Landlock`. */
export function describeWalls(walls: Walls): string {
  const standing = WALL_NAMES.filter(name => walls[name] === true)
  const reasons = new Map<string, WallName[]>()
  for (const name of WALL_NAMES) {
    const why = walls[name]
    if (why !== true) reasons.set(why, [...(reasons.get(why) ?? []), name])
  }
  const missing = [...reasons].map(([why, names]) => `not from ${listed(names)}: ${why}`)
  return [...(standing.length === 0 ? [] : [`walled from ${listed(standing)}`]), ...missing].join('; ')
}

function listed(names: readonly string[]): string {
  return names.length < 2 ? names.join() : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`
}
