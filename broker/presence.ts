/**
 * Presence: which devices are online, told to the space.
 *
 * A device is online while at least one connection holds it. A connection holds a device from its first message for it (or
 * from CONNECT, of the device that its client id names) until it ends, or until a status message or a will says
 * offline. So a takeover, or the late will of a session that was taken over, cannot mark a device offline that another
 * connection holds, in whichever order the two come. Nor can the end of a connection whose client another broker serves by
 * then: that one speaks for the client's own device. Of a gateway's other devices nobody can know whether they came along,
 * and when nobody can tell whose the client is, of none. These go offline at the earliest time that ends what this
 * connection said, so that the other broker's word is newer.
 *
 * Changes of one device carry strictly growing times, because at the same time offline wins in the space. They are merged
 * in batches, one at a time, and again while the space is away; only the newest of a device is kept.
 *
 * Bounds: devices that are held, those of one connection, and changes that wait for the space. A connection that is refused at
 * one of them holds nothing of the device, so that it says nothing of it when it ends either, and asks again every second
 * (`presence-misses.ts`). That a device is offline which was held is never refused: a device is taken only while fewer than
 * `devicesMax` changes wait, so that with those of all devices held there are fewer than twice as many.
 */
import { metrics } from '../metrics.ts'
import type { Presence } from '../model/device-state.ts'
import type { Space, Whose } from '../space/space.ts'
import type { Connection } from './connection.ts'
import { openPresenceMisses } from './presence-misses.ts'
import type { SampledLog } from './sampled-log.ts'

/** A gateway speaks for many devices; what it sends for more is stored all the same, but their presence waits for room. */
const DEVICES_PER_CONNECTION_MAX = 10_000
/** A device that changes its connection has two for a while. */
const HOLDS_PER_DEVICE_MEAN_MAX = 2
/** Changes gather this long, so that a device that flaps costs one change per merge and its times stay near the clock. */
const GATHER_MS = 20

/** Changes that wait when all devices held go offline, to those that may wait. */
const HOLDS_AND_CHANGES = 2

interface ChangeOptions {
  readonly at?: number
  readonly wasHeld?: boolean
}

export interface PresenceKeeper {
  /** The connection speaks for the device. `known`: the space has it by now, so that it can take the change. */
  hold(connection: Connection, device: string, known: boolean): void
  /** The connection says that the device is offline. */
  release(connection: Connection, device: string): void
  /** The will of a connection that has ended says that the device is offline. */
  will(connection: Connection, device: string): void
  /** The connection has ended, and all it held with it. `whose` its client is now. */
  ended(connection: Connection, whose: Whose): void
  /** A client that came from another broker at this time has gone before it was served: nobody else will say so. */
  lost(client: string, at: number): void
  /** Every second: asks again what was refused for want of room, and tells what waits. */
  tick(): void
  /** Resolves when nothing is left to tell, or the space did not take it. */
  flush(): Promise<void>
}

export interface PresenceOptions {
  readonly space: Pick<Space, 'mergePresence'>
  /** Bounds the devices held and the changes that wait; what is beyond is counted, and asked again when there is room. */
  readonly devicesMax: number
  readonly clock: () => number
  /** Another broker speaks for the device: nothing that was told of it here is to be told again. */
  readonly disown: (device: string) => void
  readonly log: SampledLog
}

export function openPresence({ space, devicesMax, clock, disown, log }: PresenceOptions): PresenceKeeper {
  /** Connections that hold a device. */
  const holders = new Map<string, number>()
  /** Of all connections together: many that speak for the same devices have a bound, too. */
  let holds = 0
  const misses = openPresenceMisses(devicesMax)
  let pending = new Map<string, Presence>()
  /** Changes that the space is being told. */
  let telling = 0
  let merging: Promise<void> | null = null
  let scheduled = false
  /** The clock, but never going back; and the times not yet past it that the space was told, by device. */
  let now = 0
  const told = new Map<string, number>()

  return { hold, release, will, ended, lost, tick, flush }

  function hold(connection: Connection, device: string, known: boolean): void {
    const before = connection.devices.get(device)
    if (before === true || (before === false && !known)) return
    const refusal = tryHold(connection, device, known)
    if (refusal === null) {
      misses.delete(connection, device)
      return
    }
    metrics.presenceIgnored.inc({ reason: refusal })
    misses.add(connection, device, known)
  }

  /** Null when it was taken. */
  function tryHold(
    connection: Connection,
    device: string,
    known: boolean,
  ): 'too_many_devices' | 'too_many_changes' | null {
    const { devices } = connection
    const others = holders.get(device) ?? 0
    const isNew = !devices.has(device)
    if (isNew && !(mayHold(connection) && (others > 0 || holders.size < devicesMax))) return 'too_many_devices'
    const at = change(device, true)
    if (at === 0) return 'too_many_changes'
    if (isNew) {
      holders.set(device, others + 1)
      holds++
    }
    devices.set(device, known)
    connection.onlineAt = Math.max(connection.onlineAt, at)
    return null
  }

  function mayHold({ devices }: Connection): boolean {
    return devices.size < DEVICES_PER_CONNECTION_MAX && holds < HOLDS_PER_DEVICE_MEAN_MAX * devicesMax
  }

  /** A device that nobody holds. */
  function mayTakeNew(connection: Connection): boolean {
    return mayHold(connection) && holders.size < devicesMax && pending.size + telling < devicesMax
  }

  function release(connection: Connection, device: string): void {
    misses.delete(connection, device)
    const wasHeld = connection.devices.has(device)
    if (letGo(connection, device)) change(device, false, { wasHeld })
  }

  /** True when no connection holds the device any more. */
  function letGo(connection: Connection, device: string): boolean {
    const held = connection.devices.delete(device) ? 1 : 0
    holds -= held
    const left = (holders.get(device) ?? 0) - held
    if (left > 0) holders.set(device, left)
    else holders.delete(device)
    return left <= 0
  }

  function will(connection: Connection, device: string): void {
    // Of a device that it holds its end says the same, and knows whose the client is.
    if (!connection.devices.has(device) && !holders.has(device)) change(device, false, { at: connection.onlineAt + 1 })
  }

  function ended(connection: Connection, whose: Whose): void {
    const { devices, session, onlineAt, endedAt } = connection
    misses.forget(connection)
    const at = whose === 'ours' ? Math.max(endedAt, onlineAt + 1) : onlineAt + 1
    for (const device of devices.keys()) {
      if (!letGo(connection, device)) continue
      if (whose === 'theirs' && device === session) leaveToOthers(device)
      else change(device, false, { at, wasHeld: true })
    }
  }

  function leaveToOthers(device: string): void {
    pending.delete(device)
    disown(device)
  }

  function lost(client: string, at: number): void {
    if (!holders.has(client)) change(client, false, { at, wasHeld: true })
  }

  /**
   * Returns the time of the change; 0 when it was not taken. One `at` a given time is nothing beside a newer one. Of a device
   * that `wasHeld` here nobody else would say it.
   */
  function change(device: string, online: boolean, { at, wasHeld }: ChangeOptions = {}): number {
    const max = wasHeld === true ? HOLDS_AND_CHANGES * devicesMax : devicesMax
    if (pending.size + telling >= max && !pending.has(device)) {
      if (!online) metrics.presenceIgnored.inc({ reason: 'too_many_changes' })
      return 0
    }
    if (at !== undefined && (pending.get(device)?.at ?? at) > at) return 0
    now = Math.max(now, clock())
    const time = at ?? Math.max(now, (told.get(device) ?? 0) + 1)
    pending.set(device, { device, online, at: time })
    schedule()
    return time
  }

  function tick(): void {
    misses.askAgain((connection, device, known) => tryHold(connection, device, known) === null, mayTakeNew)
    void flush()
  }

  function schedule(): void {
    if (scheduled) return
    scheduled = true
    setTimeout(() => {
      scheduled = false
      void flush()
    }, GATHER_MS)
  }

  function flush(): Promise<void> {
    merging ??= mergeAll().finally(() => {
      merging = null
    })
    return merging
  }

  async function mergeAll(): Promise<void> {
    while (pending.size > 0) {
      const taken = pending
      pending = new Map()
      telling = taken.size
      now = Math.max(now, clock())
      for (const [device, at] of told) if (at < now) told.delete(device)
      for (const { device, at } of taken.values()) told.set(device, Math.max(at, told.get(device) ?? 0))
      try {
        await space.mergePresence([...taken.values()])
      } catch (error) {
        log.warn('presence could not be merged', { err: error })
        // The space is away: what is newer stays, the rest is told again with the next change or the next second.
        for (const [device, presence] of taken) if (!pending.has(device)) pending.set(device, presence)
        return
      } finally {
        telling = 0
      }
    }
  }
}
