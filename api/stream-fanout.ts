/**
 * The fan-out: which client is sent which states.
 *
 * Each client has the ids of devices that changed since they were last sent to it: never states, so that a slow client gets the
 * newest ones, later. A round, five times a second, reads the states of what all clients are to be sent once, and writes.
 *
 * Bounds, each with its fate: ids waiting for a client, beyond which it is told of a `gap`; states of one client in one round,
 * beyond which the rest waits for the next; unread bytes, after which nothing is written to that client until they are
 * read; time without reading, after which it is closed.
 */
import type { ServerResponse } from 'node:http'
import type { DeviceState } from '../model/device-state.ts'
import { shownJson } from '../shown-text.ts'
import type { ApiOptions } from './api.ts'
import { type DocumentView, stateDocument } from './state-document.ts'

const ROUND_MS = 200
/** Changes are asked for more often than they are sent, so that one waits little more than a round. */
const WATCH_MS = 50
const HEARTBEAT_MS = 15_000
const UNREAD_MS_MAX = 30_000
const WAITING_MAX = 5_000
const STATES_PER_ROUND_MAX = 200
const RECONNECT_MS = 2_000

interface Client {
  readonly response: ServerResponse
  /** Null for all devices. */
  readonly devices: ReadonlySet<string> | null
  readonly waiting: Set<string>
  /** Changes that it could not be told of, for the next `gap`; null for no gap. */
  missed: number | null
  unreadSince: number | null
  writtenAt: number
}

export interface Fanout {
  readonly clients: number
  /** Takes over a response whose head is written. `resumed`: this client was connected before. */
  add(
    response: ServerResponse,
    wants: { readonly devices: ReadonlySet<string> | null; readonly resumed: boolean },
  ): void
  close(): void
}

export function openFanout({ space, clock, staleAfterMs, log }: ApiOptions): Fanout {
  const clients = new Set<Client>()
  /** Who named a device, so that a change costs one look-up however many clients there are. */
  const followers = new Map<string, Set<Client>>()
  let timer: NodeJS.Timeout | null = null
  let stopWatching = () => {}
  let sending = false
  /** True since a state was sent as being rebuilt. */
  let owesWhole = false
  /** True since the states could not be read: told once, and once when they can be again. */
  let isAway = false

  return {
    get clients() {
      return clients.size
    },
    add,
    close,
  }

  function add(
    response: ServerResponse,
    { devices, resumed }: { devices: ReadonlySet<string> | null; resumed: boolean },
  ): void {
    const client: Client = {
      response,
      devices,
      waiting: new Set(devices),
      missed: resumed && devices === null ? 0 : null,
      unreadSince: null,
      writtenAt: clock(),
    }
    clients.add(client)
    for (const device of devices ?? []) followers.set(device, (followers.get(device) ?? new Set()).add(client))
    response.once('close', () => remove(client))
    response.on('drain', () => {
      client.unreadSince = null
    })
    if (timer === null) start()
    write(client, `retry: ${RECONNECT_MS}\n\n`)
    void sendRound([client])
  }

  function start(): void {
    timer = setInterval(() => void round(), ROUND_MS)
    stopWatching = space.watch(WATCH_MS, note)
  }

  function remove(client: Client): void {
    clients.delete(client)
    for (const device of client.devices ?? []) {
      const left = followers.get(device)
      left?.delete(client)
      if (left?.size === 0) followers.delete(device)
    }
    if (clients.size > 0 || timer === null) return
    clearInterval(timer)
    timer = null
    stopWatching()
  }

  function note(changed: readonly string[]): void {
    for (const device of changed) {
      for (const client of followers.get(device) ?? []) client.waiting.add(device)
    }
    for (const client of clients) if (client.devices === null) noteAll(client, changed)
  }

  async function round(): Promise<void> {
    const now = clock()
    for (const client of clients) {
      if (client.unreadSince !== null) {
        if (now - client.unreadSince >= UNREAD_MS_MAX) client.response.destroy()
      } else if (now - client.writtenAt >= HEARTBEAT_MS) {
        write(client, ':\n\n')
      }
    }
    if (owesWhole && space.warm) {
      owesWhole = false
      for (const client of clients) noteWhole(client)
    }
    await sendRound(clients)
  }

  async function sendRound(to: Iterable<Client>): Promise<void> {
    if (sending) return
    sending = true
    const turns = [...to].filter(mayWrite).map(client => ({ client, taken: take(client) }))
    try {
      const events = await readEvents(new Set(turns.flatMap(({ taken }) => taken)))
      for (const { client, taken } of turns) writeTurn(client, taken, events)
    } catch (error) {
      for (const { client, taken } of turns) for (const device of taken) client.waiting.add(device)
      if (!isAway) log.warn({ err: error }, 'the states for streams cannot be read; they are sent when they can be')
      isAway = true
    } finally {
      sending = false
    }
  }

  async function readEvents(devices: ReadonlySet<string>): Promise<ReadonlyMap<string, string>> {
    if (devices.size === 0) return new Map()
    const states = await space.getMany([...devices])
    if (isAway) log.info('the states for streams can be read again')
    isAway = false
    const rehydrating = !space.warm
    if (rehydrating) owesWhole = true
    const view = { now: clock(), staleAfterMs, rehydrating }
    return new Map(states.map(state => [state.device, stateEvent(state, view)]))
  }

  function writeTurn(client: Client, taken: readonly string[], events: ReadonlyMap<string, string>): void {
    let text = client.missed === null ? '' : gapEvent(client.missed)
    client.missed = null
    for (const device of taken) text += events.get(device) ?? ''
    if (text !== '') write(client, text)
  }

  function write(client: Client, text: string): void {
    if (client.response.destroyed || client.response.writableEnded) return
    client.writtenAt = clock()
    if (!client.response.write(text)) client.unreadSince ??= client.writtenAt
  }

  function close(): void {
    for (const client of clients) client.response.end()
    for (const client of clients) remove(client)
  }
}

/** Looks at no more than it has room for: in a spike, a stream of all devices must cost no more than what it can send. */
function noteAll(client: Client, changed: readonly string[]): void {
  const room = Math.max(0, WAITING_MAX - client.waiting.size)
  for (const device of changed.slice(0, room)) client.waiting.add(device)
  if (changed.length > room) client.missed = (client.missed ?? 0) + changed.length - room
}

/** What was sent as being rebuilt is sent once more when it is whole; nobody knows which of all devices that were. */
function noteWhole(client: Client): void {
  if (client.devices === null) client.missed ??= 0
  for (const device of client.devices ?? []) client.waiting.add(device)
}

function mayWrite({ unreadSince, waiting, missed }: Client): boolean {
  return unreadSince === null && (waiting.size > 0 || missed !== null)
}

/** The ids that waited longest, off the list: a change while they are being read puts them on it again. */
function take({ waiting }: Client): string[] {
  const taken: string[] = []
  for (const device of waiting) {
    if (taken.length === STATES_PER_ROUND_MAX) break
    taken.push(device)
    waiting.delete(device)
  }
  return taken
}

function stateEvent(state: DeviceState, view: DocumentView): string {
  return `id: ${view.now}\nevent: state\ndata: ${shownJson(stateDocument(state, view))}\n\n`
}

function gapEvent(missed: number): string {
  return `event: gap\ndata: {"missed":${missed}}\n\n`
}
