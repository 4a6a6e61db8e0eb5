/**
 * Subscriptions to sharded channels, on a client of their own.
 *
 * Pub/sub loses messages: while it reconnects, while a slot moves, and in ways that no event tells of. So a channel hears
 * itself: an echo is published to each every two seconds, and one that does not hear it is subscribed anew. After every
 * such pause, the first subscription included, `missed` is called: what was published before may be lost.
 */
import { randomBytes } from 'node:crypto'
import type { Logger } from 'pino'
import type { RedisClient } from './redis-client.ts'
import { type RedisConnection, within } from './redis-connection.ts'
import { translateRedisError } from './redis-errors.ts'

export interface RedisSubscriber {
  /** Returns the way to end it. */
  subscribe(channel: string, listener: ChannelListener): () => void
  close(): void
}

export interface ChannelListener {
  message(text: string): void
  /** The channel is heard from now on; what was published before may not have been. */
  missed(): void
}

const ECHO_MS = 2_000
const DEAF_MS_MAX = 5_000
const AGAIN_MS = 250
const SUBSCRIBE_MS_MAX = 3_000

interface Channel {
  readonly listener: ChannelListener
  /** When it was last heard, ms of a clock that only grows; null until it is subscribed. */
  heardAt: number | null
}

export function openRedisSubscriber(connection: RedisConnection, log: Logger): RedisSubscriber {
  const channels = new Map<string, Channel>()
  const echo = `echo ${randomBytes(6).toString('hex')}`
  let client: RedisClient | null = null
  let ready = false
  let again: NodeJS.Timeout | null = null
  let closed = false
  const echoes = setInterval(listen, ECHO_MS)
  echoes.unref()

  return { subscribe, close }

  function subscribe(channel: string, listener: ChannelListener): () => void {
    channels.set(channel, { listener, heardAt: null })
    if (client === null) open()
    else if (ready) void subscribeNow(client, channel)
    return () => {
      channels.delete(channel)
      if (channels.size === 0) drop()
      else if (ready) client?.sunsubscribe(channel).catch(() => {})
    }
  }

  function open(): void {
    if (closed || client !== null || channels.size === 0) return
    const opened = connection.openSubscriber()
    if (opened === null) {
      tryAgain()
      return
    }
    client = opened
    opened.on('error', () => {})
    opened.once('ready', () => {
      ready = true
      for (const channel of channels.keys()) void subscribeNow(opened, channel)
    })
    // A Cluster's client tells by the last two that it changed a connection to a node.
    for (const event of ['close', 'end', '-node', '-subscriber']) opened.on(event, () => renew(opened))
    opened.on('smessage', (channel: string, text: string) => hear(channel, text))
  }

  async function subscribeNow(on: RedisClient, name: string): Promise<void> {
    const channel = channels.get(name)
    try {
      await within(on.ssubscribe(name) as Promise<unknown>, SUBSCRIBE_MS_MAX)
      if (on !== client || channel === undefined || channels.get(name) !== channel) return
      channel.heardAt = performance.now()
      channel.listener.missed()
    } catch (error) {
      log.debug({ detail: translateRedisError(error, 'subscribing').detail }, 'a channel of Redis is not heard')
      renew(on)
    }
  }

  function hear(name: string, text: string): void {
    const channel = channels.get(name)
    if (channel === undefined) return
    if (text === echo) channel.heardAt = performance.now()
    else if (!text.startsWith('echo ')) channel.listener.message(text)
  }

  function listen(): void {
    const now = performance.now()
    for (const [name, { heardAt }] of channels) {
      if (heardAt !== null && now - heardAt > DEAF_MS_MAX && client !== null) {
        renew(client)
        return
      }
      if (heardAt !== null) connection.command('SPUBLISH', [name, echo]).catch(() => {})
    }
  }

  function renew(old: RedisClient): void {
    if (old !== client) return
    drop()
    tryAgain()
  }

  function drop(): void {
    client?.removeAllListeners()
    client?.on('error', () => {})
    client?.disconnect()
    client = null
    ready = false
    for (const channel of channels.values()) channel.heardAt = null
  }

  function tryAgain(): void {
    if (again !== null || closed) return
    again = setTimeout(() => {
      again = null
      open()
    }, AGAIN_MS)
  }

  function close(): void {
    closed = true
    clearInterval(echoes)
    if (again !== null) clearTimeout(again)
    channels.clear()
    drop()
  }
}
