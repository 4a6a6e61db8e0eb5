/**
 * Claims: which devices and metrics there are, counted before their readings are accepted, so that the bounds hold exactly
 * for what this process has seen ([G5]).
 *
 * What was accepted is not refused later: readings of the log, after a setting was lowered, are taken up to what the tables
 * can hold: `DEVICES_HELD_MAX` devices, `SLOTS_PER_DEVICE_MAX` metrics of one, `NAMES_MAX` names.
 */
import { LIMITS } from '../model/limits.ts'
import type { DeviceTable } from './device-table.ts'
import type { MetricNames } from './metric-names.ts'
import { type MetricSlots, SLOTS_PER_DEVICE_MAX } from './metric-slots.ts'
import type { Space } from './space.ts'

export interface ClaimsOptions {
  readonly table: DeviceTable
  readonly names: MetricNames
  readonly slots: Pick<MetricSlots, 'find' | 'add'>
  /** Devices that may be claimed. */
  readonly devicesMax: number
  /** A device came to the table. */
  added(index: number): void
}

export interface Claims {
  readonly claim: Space['claimMetric']
  /** The device's number, or -1 at the bound of the table. */
  findOrAdd(device: string): number
  /** The slot of a metric, or -1 at a bound of the tables. `hint` is where it is likely to be, counted from the device's first. */
  slotOf(index: number, metric: string, hint: number): number
}

/** What a Map holds. */
const DEVICES_HELD_MAX = 2 ** 24 - 1

/** A mean over the fleet, so that a million devices with a thousand metrics each cannot take all memory. */
const METRICS_PER_DEVICE_MEAN_MAX = 16
const METRICS_MAX_AT_LEAST = 1_000_000

export function openClaims({ table, names, slots, devicesMax, added }: ClaimsOptions): Claims {
  const metricsMax = Math.max(METRICS_MAX_AT_LEAST, devicesMax * METRICS_PER_DEVICE_MEAN_MAX)
  let metricsHeld = 0

  return { claim, findOrAdd, slotOf }

  function claim(device: string, metric: string): ReturnType<Space['claimMetric']> {
    const index = table.find(device)
    if (index < 0 && table.devices >= devicesMax) return 'too_many_devices'
    const name = names.find(metric)
    const count = index < 0 ? 0 : table.slots(index)
    if (name >= 0 && count > 0 && slots.find(table.firstSlot(index), count, name, 0) >= 0) return 'ok'
    if (count >= LIMITS.metricsPerDeviceMax || metricsHeld >= metricsMax) return 'too_many_metrics'
    if (name < 0 && names.full) return 'too_many_metrics'
    addMetric(index < 0 ? addDevice(device) : index, name < 0 ? names.add(metric) : name)
    return 'ok'
  }

  function findOrAdd(device: string): number {
    const index = table.find(device)
    if (index >= 0 || table.devices >= DEVICES_HELD_MAX) return index
    return addDevice(device)
  }

  function addDevice(device: string): number {
    const index = table.add(device)
    added(index)
    return index
  }

  function slotOf(index: number, metric: string, hint: number): number {
    const name = names.find(metric)
    const slot = name < 0 ? -1 : slots.find(table.firstSlot(index), table.slots(index), name, hint)
    return slot < 0 ? addMetric(index, name < 0 ? names.add(metric) : name) : slot
  }

  function addMetric(index: number, name: number): number {
    const count = table.slots(index)
    if (name < 0 || count >= SLOTS_PER_DEVICE_MAX) return -1
    const first = slots.add(table.firstSlot(index), count, name)
    table.setSlots(index, first, count + 1)
    metricsHeld++
    return first + count
  }
}
