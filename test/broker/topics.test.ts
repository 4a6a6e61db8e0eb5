import { describe, expect, it } from 'vitest'
import { isOwnCommandFilter, keptTopic, parseStatus, parseTopic } from '../../broker/topics.ts'

const unknown = 'unknown_topic'
const table: [topic: string, expected: object][] = [
  ['devices/press-17/telemetry', { kind: 'telemetry', device: 'press-17', metric: null }],
  ['devices/press-17/telemetry/temperature', { kind: 'telemetry', device: 'press-17', metric: 'temperature' }],
  ['devices/a:b.c_d-9/telemetry/spindle speed', { kind: 'telemetry', device: 'a:b.c_d-9', metric: 'spindle speed' }],
  ['devices/__proto__/telemetry', { kind: 'telemetry', device: '__proto__', metric: null }],
  ['devices/press-17/status', { kind: 'status', device: 'press-17' }],
  ['devices/press-17/telemetry/', { kind: 'refused', reason: 'invalid_metric', device: 'press-17' }],
  [`devices/d/telemetry/${'m'.repeat(129)}`, { kind: 'refused', reason: 'invalid_metric', device: 'd' }],
  ['devices/press-17/telemetry/a/b', { kind: 'refused', reason: unknown, device: '' }],
  ['devices/press-17/status/x', { kind: 'refused', reason: unknown, device: '' }],
  ['devices/press-17', { kind: 'refused', reason: unknown, device: '' }],
  ['devices//telemetry', { kind: 'refused', reason: 'invalid_device', device: '' }],
  ['devices/press 17/telemetry', { kind: 'refused', reason: 'invalid_device', device: '' }],
  [`devices/${'d'.repeat(129)}/telemetry`, { kind: 'refused', reason: 'invalid_device', device: '' }],
  ['/devices/press-17/telemetry', { kind: 'refused', reason: unknown, device: '' }],
  ['Devices/press-17/telemetry', { kind: 'refused', reason: unknown, device: '' }],
  ['spBv1.0/plant/DDATA/press', { kind: 'refused', reason: unknown, device: '' }],
  ['$share/g/devices/press-17/telemetry', { kind: 'reserved', reason: 'reserved_share' }],
  ['devices/press\u000017/telemetry', { kind: 'refused', reason: 'invalid_topic', device: '' }],
  ['devices/press-17/telemetry/\ufffd', { kind: 'refused', reason: 'invalid_topic', device: '' }],
  ['devices/press-17/telemetry/a\nlevel=error', { kind: 'refused', reason: 'invalid_topic', device: '' }],
  [`devices/d/telemetry/${'ü'.repeat(119)}`, { kind: 'refused', reason: 'invalid_topic', device: '' }],
  [`devices/d/telemetry/${'ü'.repeat(118)}`, { kind: 'telemetry', device: 'd', metric: 'ü'.repeat(118) }],
  ['1/2/3/4/5/6/7/8/9', { kind: 'refused', reason: 'invalid_topic', device: '' }],
  ['1/2/3/4/5/6/7/8', { kind: 'refused', reason: unknown, device: '' }],
  ['$SYS/x/new/clients', { kind: 'reserved', reason: 'reserved_sys' }],
  ['devices/press-17/cmd/restart', { kind: 'reserved', reason: 'reserved_cmd' }],
  ['devices/press-17/cmd/a/b/c', { kind: 'reserved', reason: 'reserved_cmd' }],
  ['devices/press-17/reply/7', { kind: 'reserved', reason: 'reserved_reply' }],
  ['devices/press-17/state/desired', { kind: 'reserved', reason: 'reserved_state' }],
  ['devices/press-17/cmd', { kind: 'refused', reason: unknown, device: '' }],
  ['devices/press-17/commands/x', { kind: 'refused', reason: unknown, device: '' }],
  ['devices/press-17/constructor/x', { kind: 'refused', reason: unknown, device: '' }],
  ['devices//cmd/restart', { kind: 'refused', reason: 'invalid_device', device: '' }],
  ['site/press-17/cmd/restart', { kind: 'refused', reason: unknown, device: '' }],
]

describe('topics', () => {
  it.each(table)('takes %j for what it is', (topic, expected) => {
    expect(parseTopic(topic)).toMatchObject(expected)
  })

  it.each([
    ['devices/press-17/telemetry/x/y', 'devices/press-17/telemetry/x/y'],
    ['x'.repeat(256), 'x'.repeat(256)],
    ['x'.repeat(65_000), 'x'.repeat(256)],
    [`\ufeff-${'ü'.repeat(200)}`, `\ufeff-${'ü'.repeat(126)}`],
    [`--${'\u{1f4a7}'.repeat(64)}`, `--${'\u{1f4a7}'.repeat(63)}`],
  ])('keeps of the topic of a refused message as much as a topic may have, in whole characters: %#', (topic, kept) => {
    expect(keptTopic(topic)).toBe(kept)
  })

  it.each([
    ['online', 'online'],
    [' offline\n', 'offline'],
    ['{"state":"online"}', 'online'],
    ['{"state":"offline","since":1}', 'offline'],
    ['Online', null],
    ['', null],
    ['{"state":1}', null],
    ['{"state":', null],
    ['[]', null],
    [`${' '.repeat(300)}online`, null],
  ])('reads the status %j as %j', (payload, expected) => {
    expect(parseStatus(Buffer.from(payload))).toBe(expected)
  })

  it('lets a client subscribe below its own command topic, with wildcards there, and to nothing else', () => {
    const own = ['restart', 'a/b', '#', '+', '+/#', 'a/+', '+/b', 'a/#', '+/+']
    for (const below of own) expect(isOwnCommandFilter('press-17', `devices/press-17/cmd/${below}`), below).toBe(true)
    for (const id of ['+', '#', 'a/b', '']) expect(isOwnCommandFilter(id, `devices/${id}/cmd/x`), id).toBe(false)
    const refused = ['#', '+', 'devices/press-17/#', 'devices/+/cmd/restart', 'devices/press-18/cmd/restart']
    refused.push('$SYS/#', 'devices/press-17/telemetry', 'devices/press-17/cmd', 'devices/press-17/cmd/\u0000')
    refused.push('devices/press-17/cmd/a+', 'devices/press-17/cmd/#/a', 'devices/press-17/cmd/a#')
    refused.push(`devices/press-17/cmd/${'x'.repeat(600)}`, `devices/press-17/cmd${'/x'.repeat(14)}`)
    for (const filter of refused) expect(isOwnCommandFilter('press-17', filter), filter).toBe(false)
  })
})
