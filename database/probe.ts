/**
 * The first question to a server: is it ClickHouse at all? Asked before anything else, because the answers of something
 * else look like any failure, and would be tried again for ever.
 */
import { request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { SurgetankError } from '../errors.ts'
import type { DatabaseAccess } from './database.ts'
import { translateError } from './error-classes.ts'

const ANSWER_MS_MAX = 10_000
/** What ClickHouse answers to /ping, and proxies made for it pass on. */
const PONG = 'Ok.'
const ANSWER_BYTES_MAX = 1_024

/**
 * Resolves when ClickHouse answers at the URL. Rejects with `database_unavailable` when nothing does yet, and with
 * `database_misconfigured` when something else does, or when its certificate is not trusted.
 */
export async function probe({ url, socketPath, ca }: DatabaseAccess): Promise<void> {
  const { status, text } = await ask(new URL('/ping', url), { socketPath, ca }).catch((error: unknown) => {
    throw translateError(error, 'reaching ClickHouse')
  })
  if (status === 200 && text.trim() === PONG) return
  // A proxy in front of a server that is away, or one that asks to wait.
  if (status >= 500 || status === 429)
    throw new SurgetankError('database_unavailable', `reaching ClickHouse: HTTP status ${status}`)
  throw new SurgetankError(
    'database_misconfigured',
    `What answers at the URL is not ClickHouse (HTTP status ${status}): set the URL of its HTTP port, usually 8123, or 8443 with https.`,
  )
}

type Way = Pick<DatabaseAccess, 'socketPath' | 'ca'>

function ask(url: URL, { socketPath, ca }: Way): Promise<{ status: number; text: string }> {
  const request = url.protocol === 'https:' ? requestHttps : requestHttp
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(ANSWER_MS_MAX)
    const way = { ...(socketPath === null ? {} : { socketPath }), ...(ca === null ? {} : { ca }) }
    const sent = request(url, { agent: false, signal, ...way }, response => {
      let text = ''
      const done = () => resolve({ status: response.statusCode ?? 0, text })
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part
        if (text.length > ANSWER_BYTES_MAX) response.destroy()
      })
      response.once('end', done).once('close', done).once('error', reject)
    })
    sent.once('error', reject)
    sent.end()
  })
}
