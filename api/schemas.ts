/** The shapes of requests and answers that more than one route speaks of. They describe; `state-document.ts` writes. */
import { Type } from 'typebox'
import { LIMITS } from '../model/limits.ts'

/** Judged by `isDeviceId`: see `newServer`. */
export const DeviceId = Type.String({
  minLength: 1,
  maxLength: LIMITS.deviceIdCharsMax,
  format: 'device-id',
  description:
    'A device id, as in the topic: printable characters but / + #. Percent-encoded (UTF-8) in a path or a query.',
})

export const Time = Type.String({
  format: 'date-time',
  description: 'RFC 3339, UTC, with milliseconds; with microseconds where they are not 0.',
})

export const Value = Type.Union([Type.Number(), Type.String(), Type.Boolean(), Type.Null()], {
  description: 'As the device sent it. An integer that a double cannot hold comes as a string of its digits.',
})

export const StateDocument = Type.Object(
  {
    device: DeviceId,
    version: Type.Integer({
      description:
        'The newest receive time that this state is made of, µs since 1970 UTC; never falls. Equals last_seen.',
    }),
    online: Type.Boolean({ description: 'Whether its MQTT connection is open.' }),
    last_seen: Time,
    rehydrating: Type.Boolean({
      description:
        'True while the state is being rebuilt after a start: newer values may be on their way from the log.',
    }),
    metrics: Type.Record(
      Type.String(),
      Type.Object({
        value: Value,
        ts: Time,
        received_at: Time,
        stale: Type.Boolean({ description: 'True when it was not received for SURGETANK_STALE_SECONDS.' }),
      }),
    ),
  },
  { title: 'State', description: 'The newest state of a device.' },
)

export const Next = Type.Union([Type.String(), Type.Null()], {
  description: 'The `cursor` of the next page, or null on the last one. Also as a Link header.',
})

export const PersistedThrough = Type.String({
  format: 'date-time',
  description: 'All that was received before this time is in ClickHouse; what came later may still be missing here.',
})

const Problem = Type.Object(
  {
    type: Type.String(),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.Optional(Type.String()),
    instance: Type.String(),
    code: Type.String({ description: 'What programs branch on.' }),
    errors: Type.Optional(Type.Array(Type.Object({ pointer: Type.String(), detail: Type.String() }))),
  },
  { title: 'Problem', description: 'RFC 9457' },
)

/** An error answer of a route, for its description. */
export function problemAnswer(description: string) {
  return { description, content: { 'application/problem+json': { schema: Problem } } }
}

/**
 * The answers of a route, for its description alone: documents are sent as text that is already written, and must not be
 * typed, checked or rewritten by their schema.
 */
export function answers(byStatus: Readonly<Record<number, unknown>>): unknown {
  return byStatus
}
