/**
 * What a run must have left: for each device the messages that count, with whether they were acknowledged. Pure.
 */
import type { SentReading } from './compare.ts'
import type { Ledger } from './ledger.ts'
import type { Workload } from './workload.ts'

export interface ExpectedMessage {
  readonly n: number
  /** It or a repetition of it was acknowledged. */
  acked: boolean
}

export interface Expected {
  /** By the device's place in the workload; repetitions left out. */
  readonly byDevice: readonly (readonly ExpectedMessage[])[]
  readonly ackedReadings: number
  /** Messages with the device, time and content of an earlier one. */
  readonly repetitions: number
}

export function expectMessages(workload: Workload, ledger: Ledger): Expected {
  const byDevice: ExpectedMessage[][] = workload.devices.map(() => [])
  const originals = new Map<number, ExpectedMessage>()
  let ackedReadings = 0
  let repetitions = 0
  for (let n = 0; n < workload.total; n++) {
    if (!ledger.wasSent(n)) continue
    const original = workload.originalOf(n)
    const known = originals.get(original)
    const message = known ?? { n, acked: false }
    if (known !== undefined) repetitions++
    else byDevice[workload.deviceOf(n)]?.push(message)
    // Only what may be repeated is remembered: of a synthetic run, nothing.
    if (known === undefined && !workload.ownDevices) originals.set(original, message)
    if (!ledger.wasAcked(n) || message.acked) continue
    message.acked = true
    ackedReadings += workload.readings(n).length
  }
  return { byDevice, ackedReadings, repetitions }
}

export function* sentReadings(
  workload: Workload,
  ledger: Ledger,
  messages: readonly ExpectedMessage[],
): Iterable<SentReading> {
  for (const { n, acked } of messages) {
    const time = ledger.timeOf(n)
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
