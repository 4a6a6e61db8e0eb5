/**
 * `/v1/stream`: changes as they come, as server-sent events. The route; who is sent what is in `stream-fanout.ts`.
 */
import { Type } from 'typebox'
import { isDeviceId } from '../model/ids.ts'
import { LIMITS } from '../model/limits.ts'
import type { ApiOptions, Server } from './api.ts'
import { SECURITY_HEADERS } from './guards.ts'
import { type ListBounds, listParameter, parseList } from './list-parameter.ts'
import { ApiProblem, invalidQuery } from './problems.ts'
import { answers, problemAnswer } from './schemas.ts'
import { openFanout } from './stream-fanout.ts'

const CLIENTS_MAX = 100
const DEVICES_PER_CLIENT_MAX = 500

const DEVICES: ListBounds = { valuesMax: DEVICES_PER_CLIENT_MAX, charsMax: LIMITS.deviceIdCharsMax }

const STREAM_HEADERS = {
  ...SECURITY_HEADERS,
  'content-type': 'text/event-stream; charset=utf-8',
  'x-accel-buffering': 'no',
} as const

const SCHEMA = {
  tags: ['devices'],
  summary: 'A stream of changes (server-sent events)',
  description: `Events: \`state\`, whose data is a state document, sent for each named device at once and then whenever it changed,
at most five times a second: a device that changed often meanwhile is sent once, with its newest state. \`gap\`, whose data is
\`{"missed": n}\`: changes of up to n devices were not sent, because more devices changed than this client could be told of; read
\`/v1/devices\`. A comment every 15 s keeps the connection open. This is a projection and not a log: after a reconnect
(Last-Event-ID), and when states that were sent as \`rehydrating\` are whole again, named devices are sent anew, and a stream of
all devices gets a \`gap\`. A client that reads nothing for 30 s is closed.`,
  querystring: Type.Object(
    {
      devices: Type.Optional(
        listParameter(
          DEVICES,
          `At most ${DEVICES_PER_CLIENT_MAX} ids; all devices when left out, and then only changes.`,
        ),
      ),
    },
    { additionalProperties: false },
  ),
  response: answers({
    200: { description: 'Events', content: { 'text/event-stream': { schema: Type.String() } } },
    400: problemAnswer('A parameter does not fit.'),
    503: problemAnswer(`There are ${CLIENTS_MAX} streams already.`),
  }),
}

/** Returns what ends all streams. */
export function addStreamRoute(server: Server, options: ApiOptions): () => void {
  const fanout = openFanout(options)

  server.get('/v1/stream', { schema: SCHEMA, exposeHeadRoute: false }, (request, reply) => {
    if (fanout.clients >= CLIENTS_MAX) throw new ApiProblem('busy', `There are ${CLIENTS_MAX} streams already.`)
    const { devices } = request.query
    const wanted = devices === undefined ? null : parseDevices(devices)
    reply.hijack()
    reply.raw.writeHead(200, STREAM_HEADERS)
    fanout.add(reply.raw, {
      devices: wanted,
      resumed: request.headers['last-event-id'] !== undefined,
    })
  })

  return fanout.close
}

function parseDevices(given: string | readonly string[]): ReadonlySet<string> {
  const devices = parseList(given)
  if (devices.length > DEVICES.valuesMax) throw invalidQuery('devices', `takes at most ${DEVICES.valuesMax} ids`)
  if (!devices.every(isDeviceId)) throw invalidQuery('devices', 'holds what is no device id')
  return new Set(devices)
}
