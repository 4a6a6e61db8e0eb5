/**
 * A poor line between a client and a broker: at moments that a seed decides, it cuts the connection between two packets or
 * inside one, keeps the broker's answers from the client and then cuts, keeps what the client sends from the broker and then
 * cuts, or cuts before the CONNACK arrives; and when nothing is said for a while. It also holds the line still at given messages, and takes no other connection
 * then, so that a test can kill the broker while several are under way. The first CONNACK of a client always arrives: whether a first attempt is repeated is the
 * application's choice.
 */
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { seeded } from '../crash/rounds.ts'
import { until } from '../waits.ts'
import { openCutter } from './wire.ts'

const FAULTS = ['cut', 'cut inside', 'withhold answers', 'swallow messages', 'no CONNACK'] as const
type Fault = (typeof FAULTS)[number]

/** A fault comes after so many messages of a connection were finished (PUBACK, PUBCOMP), so that every client makes progress. */
const FINISHED_BETWEEN = [15, 100] as const
/** A line without a packet for so long is cut: some clients send what they hold by the next connection only. */
const QUIET_MS = 2_000
/** How long a line that lets nothing through stays before it is cut. */
const DEAF_MS = 100

export interface FlakyLineOptions {
  readonly seed: number
  /** Where the next connection goes. */
  readonly target: () => number
  /** The line holds still once it has passed this many PUBLISH in all, each until `goOn`. In ascending order. */
  readonly stops?: readonly number[]
  /** Every CONNACK that the client gets says "no session": what strict clients are told by a broker without sessions. */
  readonly deniesSessions?: boolean
}

export interface FlakyLine {
  readonly port: number
  /** Session present of each CONNACK that the broker sent, also of those that were withheld; in order. */
  readonly sessionsPresent: readonly boolean[]
  readonly faults: Readonly<Record<Fault, number>>
  /** PUBLISH that went to the broker, those sent again among them. */
  readonly passed: number
  /** Numbers ({"n":…}) whose PUBACK or PUBREC the broker sent, whether it arrived or not. */
  readonly answered: ReadonlySet<number>
  /** Resolves when the line holds still at this stop. */
  reached(stop: number): Promise<void>
  goOn(): void
  close(): Promise<void>
}

export async function openFlakyLine(options: FlakyLineOptions): Promise<FlakyLine> {
  const random = seeded(options.seed)
  const stops = [...(options.stops ?? [])]
  const sockets = new Set<Socket>()
  const sessionsPresent: boolean[] = []
  const faults: Record<Fault, number> = {
    cut: 0,
    'cut inside': 0,
    'withhold answers': 0,
    'swallow messages': 0,
    'no CONNACK': 0,
  }
  const answered = new Set<number>()
  let passed = 0
  let heldAt: number | null = null
  let connackArrived = false
  const server = createServer(client => serve(client))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return {
    port,
    sessionsPresent,
    faults,
    answered,
    get passed() {
      return passed
    },
    reached: stop => until(() => heldAt === stop, `the line holds still at ${stop}`).then(() => undefined),
    goOn: () => {
      heldAt = null
    },
    close,
  }

  function serve(client: Socket): void {
    if (heldAt !== null) {
      client.destroy()
      return
    }
    const broker = connect(options.target(), '127.0.0.1')
    for (const socket of [client, broker]) keep(socket)
    const quiet = setTimeout(() => cutWhenQuiet(), QUIET_MS)
    client.once('close', () => {
      clearTimeout(quiet)
      broker.destroy()
    })
    broker.once('close', () => client.destroy())
    const fault = draw()
    const [least, most] = FINISHED_BETWEEN
    let left = least + Math.floor(random() * (most - least))
    let isWithheld = fault === 'no CONNACK'
    let isSwallowed = false
    /** Packet identifier → number, of what went to the broker. */
    const sent = new Map<number, number>()
    client.on('data', openCutter(fromClient))
    broker.on('data', openCutter(fromBroker))

    function cutWhenQuiet(): void {
      if (heldAt === null) cut()
      else quiet.refresh()
    }

    function fromClient(packet: Buffer): void {
      quiet.refresh()
      const type = (packet[0] ?? 0) >> 4
      if (isSwallowed || broker.destroyed) return
      if (left <= 0 && (type === 3 || type === 6)) {
        suffer(packet)
        return
      }
      broker.write(packet)
      if (type !== 3) return
      passed++
      note(packet)
      if (passed < (stops[0] ?? Number.POSITIVE_INFINITY)) return
      heldAt = stops.shift() ?? null
      // Answers to what is under way arrive no more: the broker is about to be killed.
      isWithheld = true
      left = Number.POSITIVE_INFINITY
    }

    function suffer(packet: Buffer): void {
      if (fault === 'no CONNACK') return
      faults[fault]++
      left = Number.POSITIVE_INFINITY
      if (fault === 'cut inside') broker.write(packet.subarray(0, Math.ceil(packet.length / 2)))
      if (fault === 'withhold answers') {
        broker.write(packet)
        if (packet[0] !== 0x62) note(packet)
      }
      isWithheld = fault === 'withhold answers'
      isSwallowed = fault !== 'withhold answers'
      if (fault === 'withhold answers' || fault === 'swallow messages') void cutLater()
      else cut()
    }

    function note(publish: Buffer): void {
      const topicAt = publish.findIndex((byte, at) => at > 0 && byte < 128) + 1
      const packetIdAt = topicAt + 2 + publish.readUInt16BE(topicAt)
      const [, number] = /"n":(\d+)/.exec(publish.toString('utf8', packetIdAt)) ?? []
      sent.set(publish.readUInt16BE(packetIdAt), Number(number))
    }

    function fromBroker(packet: Buffer): void {
      const type = (packet[0] ?? 0) >> 4
      if (type === 4 || type === 5) answered.add(sent.get(packet.readUInt16BE(2)) ?? -1)
      if (type === 2) {
        sessionsPresent.push(packet[2] === 1)
        if (fault === 'no CONNACK') {
          faults[fault]++
          cut()
          return
        }
        connackArrived = true
        if (options.deniesSessions === true && packet[3] === 0) packet[2] = 0
      }
      if (isWithheld) return
      client.write(packet)
      if (type === 4 || type === 7) left--
    }

    async function cutLater(): Promise<void> {
      await pause(DEAF_MS)
      cut()
    }

    /** What was written to the broker before is still delivered to it; the client learns at once. */
    function cut(): void {
      client.resetAndDestroy()
      broker.end()
    }
  }

  function draw(): Fault {
    const fault = FAULTS[Math.floor(random() * FAULTS.length)] ?? 'cut'
    return fault === 'no CONNACK' && !connackArrived ? 'cut' : fault
  }

  function keep(socket: Socket): void {
    sockets.add(socket)
    socket.setNoDelay(true)
    socket.on('error', () => socket.destroy())
    socket.once('close', () => sockets.delete(socket))
  }

  async function close(): Promise<void> {
    for (const socket of sockets) socket.destroy()
    await new Promise<void>(resolve => server.close(() => resolve()))
  }
}
