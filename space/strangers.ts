/**
 * Strangers: devices that connected and never sent a reading. Their presence is kept, so that it counts whichever comes
 * first, and not listed: a connection alone makes no device. Bounded: the one whose presence changed longest ago is
 * forgotten, and shows as offline until it next connects, should it ever send.
 */
import type { Presence } from '../model/device-state.ts'
import { ownText } from '../model/own-text.ts'

const STRANGERS_MAX = 100_000

export interface Strangers {
  merge(presence: Presence): void
  /** Hands over what is known of a device that is none any more. */
  take(device: string): Presence | null
}

export function openStrangers(): Strangers {
  const held = new Map<string, Presence>()

  return { merge, take }

  function merge(presence: Presence) {
    const before = held.get(presence.device)
    if (before !== undefined && !isNewerPresence(presence, before)) return
    const device = before?.device ?? ownText(presence.device)
    held.delete(device)
    held.set(device, { device, online: presence.online, at: presence.at })
    if (held.size <= STRANGERS_MAX) return
    const [oldest] = held.keys()
    if (oldest !== undefined) held.delete(oldest)
  }

  function take(device: string): Presence | null {
    const presence = held.get(device)
    if (presence === undefined) return null
    held.delete(device)
    return presence
  }
}

/** The newer by `at`; offline at the same `at`. */
function isNewerPresence(a: Presence, b: Presence): boolean {
  return a.at > b.at || (a.at === b.at && !a.online && b.online)
}
