/** `/v1/devices`: the newest state of many devices, and of one. From the space alone. */
import { createHash } from 'node:crypto'
import { Type } from 'typebox'
import type { DeviceState } from '../model/device-state.ts'
import { isDeviceId } from '../model/ids.ts'
import type { ApiOptions, Server } from './api.ts'
import { decodeCursor, encodeCursor, linkNext } from './paging.ts'
import { ApiProblem, invalidQuery } from './problems.ts'
import { answers, DeviceId, Next, problemAnswer, StateDocument } from './schemas.ts'
import { stateDocument } from './state-document.ts'
import { openTurnstile } from './turnstile.ts'

const PAGE_DEVICES_MAX = 1_000
const PAGE_DEVICES = 100

/** Pages that may pass over many devices to find theirs, at one time. */
const SEARCHES_MAX = 8

const LIST_SCHEMA = {
  tags: ['devices'],
  summary: 'Devices in order of their ids, with their newest state',
  querystring: Type.Object(
    {
      search: Type.Optional(Type.String({ maxLength: 128, description: 'A part of the device id, in any case.' })),
      online: Type.Optional(Type.Boolean({ description: 'Only devices that are, or are not, online.' })),
      limit: Type.Optional(Type.Integer({ minimum: 1, maximum: PAGE_DEVICES_MAX, default: PAGE_DEVICES })),
      cursor: Type.Optional(Type.String({ maxLength: 1_024, description: '`next` of the page before.' })),
    },
    { additionalProperties: false },
  ),
  response: answers({
    200: Type.Object({ items: Type.Array(StateDocument), next: Next }),
    400: problemAnswer('A parameter does not fit.'),
    503: problemAnswer('Too many searches are under way.'),
  }),
}

const ONE_SCHEMA = {
  tags: ['devices'],
  summary: 'The newest state of a device',
  description: 'Carries a weak ETag; with If-None-Match an unchanged state is 304.',
  params: Type.Object({ id: DeviceId }),
  response: answers({
    200: StateDocument,
    304: Type.Null({ description: 'Unchanged.' }),
    400: problemAnswer('That is no device id.'),
    404: problemAnswer('No reading of this device was ever received.'),
    503: problemAnswer('Not known yet: the state is being rebuilt after a start.'),
  }),
}

export function addDeviceRoutes(server: Server, { space, clock, staleAfterMs }: ApiOptions): void {
  const searchTurnstile = openTurnstile(SEARCHES_MAX)

  server.get('/v1/devices', { schema: LIST_SCHEMA }, async (request, reply) => {
    const { search = '', online = null, limit = PAGE_DEVICES, cursor } = request.query
    const query = { search: search === '' ? null : search, online, after: parseCursor(cursor), limit: limit + 1 }
    const find = () => space.page(query)
    const found = await (query.search === null && online === null ? find() : searchTurnstile(find))
    const states = found.slice(0, limit)
    const last = states.at(-1)
    const next = found.length > limit && last !== undefined ? encodeCursor([last.device]) : null
    linkNext(request, reply, next)
    reply.type('application/json')
    return `{"items":[${states.map(documentOf).join(',')}],"next":${JSON.stringify(next)}}`
  })

  server.get('/v1/devices/:id', { schema: ONE_SCHEMA }, async (request, reply) => {
    const { id } = request.params
    const state = await space.get(id)
    if (state === null) throw unknownDevice(id, space.warm)
    const document = documentOf(state)
    const etag = weakEtag(document)
    reply.headers({ etag, 'cache-control': 'no-cache' })
    if (matches(request.headers['if-none-match'], etag)) return reply.code(304).send()
    return reply.type('application/json').send(document)
  })

  function documentOf(state: DeviceState): string {
    return stateDocument(state, { now: clock(), staleAfterMs, rehydrating: !space.warm })
  }
}

function parseCursor(cursor: string | undefined): string | null {
  if (cursor === undefined || cursor === '') return null
  const [after] = decodeCursor(cursor) ?? []
  if (typeof after !== 'string' || !isDeviceId(after)) throw invalidQuery('cursor', 'is not one of a page before')
  return after
}

/** Unknown for good, or only until the rebuild has come to it. */
export function unknownDevice(device: string, warm: boolean): ApiProblem {
  if (warm) return new ApiProblem('unknown_device', `${device} has sent none.`)
  return new ApiProblem('rehydrating', `${device} is not known yet.`)
}

function weakEtag(document: string): string {
  return `W/"${createHash('sha256').update(document).digest('base64url').slice(0, 22)}"`
}

/** RFC 9110, 13.1.2: a list of tags, compared weakly, or `*`. */
function matches(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false
  const tags = ifNoneMatch.split(',').map(tag => tag.trim().replace(/^W\//, ''))
  return tags.includes('*') || tags.includes(etag.slice(2))
}
