/**
 * What a run must have left: for each device the messages that count, with whether they were acknowledged. Pure.
 */
import type { SentReading } from './compare.ts'
import type { Ledger } from './ledger.ts'
import type { Workload } from './workload.ts'

export interface ExpectedMessage {
  readonly n: number
  /** It must be stored: it was acknowledged, and cannot be taken for a repetition, or what may be taken for one of it was. */
  acked: boolean
}

export interface Expected {
  /** By the device's place in the workload, in the order of sending. */
  readonly byDevice: readonly (readonly ExpectedMessage[])[]
  /** Readings that must be stored. */
  readonly ackedReadings: number
  /** Messages that may be taken for a repetition. */
  readonly repetitions: number
}

/**
 * A message is a repetition of none that its own connection brought. One with the device, time and content of a message of an
 * earlier connection may be taken for that one sent again; each such message stands for one that is sent again only.
 */
export function expectMessages(workload: Workload, ledger: Ledger): Expected {
  const byDevice: ExpectedMessage[][] = workload.devices.map(() => [])
  const originals = openOriginals(workload, ledger)
  let repetitions = 0
  for (let n = 0; n < workload.total; n++) {
    if (!ledger.wasSent(n)) continue
    const original = originals.take(n)
    const message = { n, acked: ledger.wasAcked(n) && original === null }
    byDevice[workload.deviceOf(n)]?.push(message)
    originals.add(message)
    if (original === null) continue
    repetitions++
    if (ledger.wasAcked(n)) original.acked = true
  }
  const mustBeStored = byDevice.flat().filter(message => message.acked)
  const ackedReadings = mustBeStored.reduce((sum, { n }) => sum + workload.readings(n).length, 0)
  return { byDevice, ackedReadings, repetitions }
}

interface Originals {
  /** One with the content of message n that an earlier connection brought, and for which no other was taken; null for none. */
  take(n: number): ExpectedMessage | null
  add(message: ExpectedMessage): void
}

/** Holds nothing of a run without a reconnect, and of messages that are like no other. */
function openOriginals(workload: Workload, ledger: Ledger): Originals {
  const byContent = new Map<string, ExpectedMessage[]>()
  const contentOf = (n: number) => (ledger.reconnected ? workload.contentOf(n, ledger.timeOf(n)) : null)
  return {
    take(n) {
      const content = contentOf(n)
      const known = content === null ? undefined : byContent.get(content)
      const { last } = ledger.connectionsOf(n)
      const at = known?.findIndex(message => ledger.connectionsOf(message.n).first < last) ?? -1
      return at === -1 ? null : (known?.splice(at, 1)[0] ?? null)
    },
    add(message) {
      const content = contentOf(message.n)
      if (content === null) return
      const known = byContent.get(content)
      if (known === undefined) byContent.set(content, [message])
      else known.push(message)
    },
  }
}

export function* sentReadings(
  workload: Workload,
  ledger: Ledger,
  messages: readonly ExpectedMessage[],
): Iterable<SentReading> {
  for (const { n, acked } of messages) {
    const time = ledger.timeOf(n) * 1_000
    for (const [metric, value] of workload.readings(n)) yield { metric, time, value, acked }
  }
}

/** Devices [from, to) of the workload, in order of their ids. */
export interface DeviceSpan {
  readonly from: number
  readonly to: number
}

/**
 * Neighbouring devices together, as far as their messages stay within `messagesMax`; at least one device each. Devices
 * that are not this run's alone stay single: others may lie between them.
 */
export function* spansOf(workload: Workload, expected: Expected, messagesMax: number): Iterable<DeviceSpan> {
  const { byDevice } = expected
  let from = 0
  let held = 0
  for (let index = 0; index < byDevice.length; index++) {
    const messages = byDevice[index]?.length ?? 0
    if (index > from && (held + messages > messagesMax || !workload.ownDevices)) {
      yield { from, to: index }
      from = index
      held = 0
    }
    held += messages
  }
  if (from < byDevice.length) yield { from, to: byDevice.length }
}
