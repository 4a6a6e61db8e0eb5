/**
 * Admission: who may connect, with what session, and what they may subscribe to. Decided in Aedes' public hooks.
 *
 * There is no authentication yet, so a user name and a password are accepted and not looked at, and the listener is on
 * loopback unless the operator trusts every peer [G6].
 */
import type { AedesOptions, AuthErrorCode, AuthenticateError, Client } from 'aedes'
import { metrics } from '../metrics.ts'
import { isClientId } from '../model/ids.ts'
import { shownName } from '../shown-text.ts'
import { connectionOf, tellSessionPresent } from './aedes-internals.ts'
import type { ClientSessions } from './client-sessions.ts'
import type { SampledLog } from './sampled-log.ts'
import type { Takeover } from './takeover.ts'
import { isOwnCommandFilter } from './topics.ts'
import type { WillMemory } from './will-memory.ts'

const SUBSCRIPTIONS_MAX = 10

/**
 * A client that gives no keepalive, or one of hours, is closed after this and half of it again without a packet. MQTT lets a
 * server close an inactive client whatever its keepalive [3.1.2.10]; refusing it instead would shut out plain clients, and
 * no limit at all would let dead ones pile up.
 */
const KEEPALIVE_SECONDS_MAX = 20 * 60

const IDENTIFIER_REJECTED: AuthErrorCode.IDENTIFIER_REJECTED = 2
const SERVER_UNAVAILABLE: AuthErrorCode.SERVER_UNAVAILABLE = 3

type Hooks = Required<Pick<AedesOptions, 'preConnect' | 'authenticate' | 'authorizeSubscribe'>>

export interface AdmissionOptions {
  readonly takeover: Pick<Takeover, 'admit'>
  readonly sessions: Pick<ClientSessions, 'begin' | 'subscribe'>
  readonly wills: Pick<WillMemory, 'keep'>
  /** Aedes answers the CONNECT with a return code, and closes. */
  readonly refused: (client: Client, reason: string) => void
  readonly log: Pick<SampledLog, 'warn'>
}

export function openAdmission({ takeover, sessions, wills, refused, log }: AdmissionOptions): Hooks {
  return { preConnect, authenticate, authorizeSubscribe }

  /** Looks at the CONNECT before Aedes does. Never refuses here: Aedes would close without the return code. */
  function preConnect(
    client: Client,
    packet: Parameters<Hooks['preConnect']>[1],
    done: Parameters<Hooks['preConnect']>[2],
  ): void {
    const { clientId, keepalive = 0, clean, protocolVersion, will } = packet
    const connection = connectionOf(client)
    if (!mayBeClientId(clientId, clean === true, protocolVersion)) {
      connection.refusal = IDENTIFIER_REJECTED
      refused(client, 'client_id')
    } else if (will !== undefined && !wills.keep(connection, will)) {
      connection.refusal = SERVER_UNAVAILABLE
      refused(client, 'will_memory')
    }
    connection.anonymous = clientId === ''
    connection.clean = clean === true
    // Aedes' parser keeps the packet as long as the connection is open, and the password is a view of all its bytes.
    delete packet.username
    delete packet.password
    // What is kept of a client is ours to keep; Aedes keeps nothing.
    packet.clean = true
    packet.keepalive = keepalive === 0 ? KEEPALIVE_SECONDS_MAX : Math.min(keepalive, KEEPALIVE_SECONDS_MAX)
    done(null, true)
  }

  function authenticate(
    client: Client,
    _username: string | undefined,
    _password: Buffer | undefined,
    done: (error: AuthenticateError | null, success: boolean | null) => void,
  ): void {
    const connection = connectionOf(client)
    const { refusal, anonymous } = connection
    if (refusal !== 0) done(refuseWith(refusal), null)
    else if (anonymous) done(null, true)
    else void takeover.admit(connection, client.id).then(outcome => answer(client, outcome, done))
  }

  function answer(
    client: Client,
    outcome: Awaited<ReturnType<Takeover['admit']>>,
    done: (error: AuthenticateError | null, success: boolean | null) => void,
  ): void {
    if (outcome === 'serve') void serve(client, done)
    if (outcome !== 'busy') return
    refused(client, 'connects_waiting')
    done(refuseWith(SERVER_UNAVAILABLE), null)
  }

  async function serve(client: Client, done: (error: null, success: boolean) => void): Promise<void> {
    const connection = connectionOf(client)
    if (await sessions.begin(connection, client.id, connection.clean)) tellSessionPresent(client)
    done(null, true)
  }

  /**
   * Anything but a filter below the own command topic gets 0x80 in its SUBACK: $SYS, and telemetry of any device [MQTT-3.9.3].
   * Many clients tell their user nothing of it, so the log does.
   */
  function authorizeSubscribe(
    client: Client,
    subscription: Parameters<Hooks['authorizeSubscribe']>[1],
    done: Parameters<Hooks['authorizeSubscribe']>[2],
  ): void {
    const { subscriptions } = connectionOf(client)
    const { topic } = subscription
    const isOwn = isOwnCommandFilter(client.id, topic)
    if (!isOwn || !(subscriptions.has(topic) || subscriptions.size < SUBSCRIPTIONS_MAX)) {
      refuseSubscription(client, topic, isOwn ? 'too_many' : 'not_own_command')
      done(null, null)
      return
    }
    void sessions.subscribe(connectionOf(client), topic, subscription.qos).then(isSaved => {
      if (!isSaved) refuseSubscription(client, topic, 'not_kept')
      done(null, isSaved ? subscription : null)
    })
  }

  function refuseSubscription(
    client: Client,
    filter: string,
    reason: 'too_many' | 'not_own_command' | 'not_kept',
  ): void {
    metrics.subscriptionsRefused.inc({ reason })
    log.warn('subscription refused', { reason, client: shownName(client.id), filter: shownName(filter) })
  }
}

function refuseWith(returnCode: AuthErrorCode): AuthenticateError {
  return Object.assign(new Error('connect refused'), { returnCode })
}

/** An empty id asks the server for one, which needs a clean session and MQTT 3.1.1 [MQTT-3.1.3-7, -8]. */
function mayBeClientId(id: string, clean: boolean, protocolVersion: number | undefined): boolean {
  return id === '' ? clean && protocolVersion === 4 : isClientId(id)
}
