/**
 * Who has a session on this disk, in order of last use, and whether there is room for another: in memory, so that nobody has
 * to ask the disk who has been away longest.
 */
export interface Seat {
  /** When the client was last known to be connected, as the disk knows or is about to; ms since 1970 UTC. */
  seenAt: number
  bytes: number
  /** Some record of it is on disk. */
  isKept: boolean
  /** Of the connection that has it; null while the client is away. */
  holder: symbol | null
  /** Writes it again; null while the client is away. */
  make: (() => Uint8Array) | null
}

export interface Room {
  readonly count: number
  /** How many have to go, at least, until it holds no more than it may. */
  readonly excess: number
  /** Whether so many more sessions and bytes are within the bounds. */
  fits(sessions: number, bytes: number): boolean
  find(name: string): Seat | undefined
  /** Of a client that is away, as if it had left now. */
  add(name: string, seenAt: number, bytes: number): Seat
  /** Puts them into the order in which they were last seen. */
  sort(): void
  resize(seat: Seat, bytes: number): void
  /** Its client is connected from now on. */
  sit(name: string, seat: Seat, holder: symbol): void
  leave(name: string, seat: Seat): void
  remove(name: string, seat: Seat): void
  /** Those that have been away longest. */
  away(most: number): [string, Seat][]
  /** Of connected clients, those that were seen before this time. */
  connectedBefore(seenAt: number, most: number): [string, Seat][]
}

export function openRoom({ sessionsMax, bytesMax }: { sessionsMax: number; bytesMax: number }): Room {
  let awayOnes = new Map<string, Seat>()
  const connected = new Map<string, Seat>()
  let bytesHeld = 0
  const find = (name: string) => connected.get(name) ?? awayOnes.get(name)

  return {
    get count() {
      return connected.size + awayOnes.size
    },
    get excess() {
      const held = connected.size + awayOnes.size
      const bytesEach = Math.max(1, bytesHeld / Math.max(1, held))
      return Math.max(held - sessionsMax, Math.ceil((bytesHeld - bytesMax) / bytesEach), 0)
    },
    fits: (sessions, bytes) =>
      connected.size + awayOnes.size + sessions <= sessionsMax && bytesHeld + bytes <= bytesMax,
    find,
    add,
    sort,
    resize,
    sit,
    leave,
    remove,
    away: most => firstOf(awayOnes, most, () => true),
    connectedBefore: (seenAt, most) => firstOf(connected, most, seat => seat.seenAt < seenAt),
  }

  function add(name: string, seenAt: number, bytes: number): Seat {
    const seat: Seat = { seenAt, bytes, isKept: false, holder: null, make: null }
    awayOnes.set(name, seat)
    bytesHeld += bytes
    return seat
  }

  function sort(): void {
    awayOnes = new Map([...awayOnes].sort(([, one], [, other]) => one.seenAt - other.seenAt))
  }

  function resize(seat: Seat, bytes: number): void {
    bytesHeld += bytes - seat.bytes
    seat.bytes = bytes
  }

  function sit(name: string, seat: Seat, holder: symbol): void {
    awayOnes.delete(name)
    connected.set(name, seat)
    seat.holder = holder
    seat.make = null
  }

  function leave(name: string, seat: Seat): void {
    connected.delete(name)
    awayOnes.set(name, seat)
    seat.holder = null
    seat.make = null
  }

  function remove(name: string, seat: Seat): void {
    if (find(name) !== seat) return
    connected.delete(name)
    awayOnes.delete(name)
    seat.holder = null
    seat.make = null
    resize(seat, 0)
  }
}

function firstOf(seats: Iterable<[string, Seat]>, most: number, is: (seat: Seat) => boolean): [string, Seat][] {
  const found: [string, Seat][] = []
  for (const entry of seats) {
    if (found.length === most) break
    if (is(entry[1])) found.push(entry)
  }
  return found
}
