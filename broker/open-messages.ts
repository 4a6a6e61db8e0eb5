/**
 * The QoS 2 messages that a client has sent and not released: open, between PUBREC and PUBREL. One that comes again is answered and
 * not stored again [MQTT-4.3.3-2], with or without DUP, with or without a time of its own.
 *
 * A message is open from when it is offered to ingest, so that it is known at once; it is in the record that a store keeps
 * only once it is durable, or a crash could keep that it was received and lose it. The repetition of one that is not durable
 * yet rides behind it through ingest, so its PUBREC waits for the original [G1]. Another content under an open identifier is a new
 * message: a client that breaks the protocol costs a row too many, never a lost one.
 *
 * Over a crash. Between the log's commit and the saved record the log itself says what is open: the line of a message has a
 * mark, (before, life, number, print). `life` is random and of this connection, `number` counts its messages, `before` is the life
 * that the record had when the connection opened it. What a connection saves has its own life, and `opened`, the number up to which
 * all are durable; ingest settles in order, so there is no gap. When the next one opens the session, open are:
 *
 *   what the record says, and each marked message with
 *   before = record.life                           its connection opened the session after the record was saved last, or
 *   life = record.life and number > record.opened  its connection saved the record, and this came later.
 *
 * - Nothing is stored twice: a durable message is in the record (number <= opened) or it is not, and then one of the two lines
 *   holds, as long as no later connection has saved. A later one has taken it over from the record and the marks when it opened.
 * - Nothing is lost, that is, nothing that was released is taken for open: PUBCOMP is written only when a record is durable
 *   that has this connection's life, `opened` at or beyond the message, and not the message. Then neither line holds for
 *   its mark. A client may use an identifier anew only after PUBCOMP. So a PUBREL waits for its message to be durable, and one
 *   of an identifier that is not known for all that came before it: a bound may have made us forget it, or its mark may not have
 *   been found. Numbers are not compared between two connections, and clocks not at all: a mark that an old broker's late
 *   commit brings into the log after another one has saved has a life that no record says any more.
 * - What an earlier connection in this process has offered, and what is not durable when the next one opens, is taken over as it
 *   is. Until it is durable the record keeps its life, so that its mark counts; releases wait for it, as everything does
 *   that ingest was given later.
 *
 * What remains: the message of another broker that did not settle in time, a mark that was forgotten (`ingest/marks.ts`), and
 * a quarantined message, which has no line and so no mark, can be stored or kept twice after a crash. A print is 96 bits
 * of SHA-256: two contents under one open identifier never share it by chance.
 */
import { createHash, randomBytes } from 'node:crypto'
import type { FoundMark } from '../ingest/ingest.ts'
import { encodeMark, type Mark } from '../model/message.ts'
import { OPEN_MESSAGES_MAX, type OpenMessage, type SessionRecord } from '../sessions/sessions.ts'

const PRINT_CHARS = 16
const LIFE_BYTES = 9

/** A message that is open. */
export class Opened implements OpenMessage, Mark {
  readonly packet: number
  readonly print: string
  readonly before: string
  readonly life: string
  /** 0 for one that a record or a mark told of. */
  readonly number: number
  isDurable: boolean
  /** Told when it is durable. */
  owner: OpenMessages

  constructor(owner: OpenMessages, packet: number, print: string, number: number) {
    this.owner = owner
    this.packet = packet
    this.print = print
    this.before = owner.before?.life ?? ''
    this.life = owner.life
    this.number = number
    this.isDurable = number === 0
  }

  /** What its line says; null where no session is kept. */
  get mark(): string | null {
    return this.owner.before === null ? null : encodeMark(this)
  }

  /** It is in the log. */
  settle(): void {
    if (this.isDurable) return
    this.isDurable = true
    this.owner.settled(this)
  }
}

/** Room for the open messages of all clients. */
export interface OpenRoom {
  used: number
  readonly max: number
  /** Makes room by what nobody is connected for; false when there is none to be made. */
  makeRoom(): boolean
  /** One was forgotten for want of room. */
  forgot(): void
}

export interface Inheritance {
  /** As the store has it. */
  readonly record: SessionRecord
  readonly marks: readonly FoundMark[]
  /** Of the connection before, where it was in this process. */
  readonly earlier: OpenMessages | null
}

export class OpenMessages {
  /** The record that was found; null where no session is kept. */
  readonly before: SessionRecord | null
  /** Of this connection. */
  readonly life: string
  /** Called when more is durable. */
  onDurable: () => void = () => undefined
  readonly #room: OpenRoom
  readonly #byPacket = new Map<number, Opened>()
  #numbered = 0
  #durable = 0
  /** Messages of earlier connections that are not durable. */
  readonly #inherited = new Set<Opened>()

  constructor(room: OpenRoom, inheritance: Inheritance | null) {
    this.#room = room
    this.before = inheritance?.record ?? null
    this.life = inheritance === null ? '' : randomBytes(LIFE_BYTES).toString('base64url')
    if (inheritance !== null) this.#inherit(inheritance)
  }

  get size(): number {
    return this.#byPacket.size
  }

  /** Takes a message in: null when it is the repetition of one that is open. */
  open(packet: number, topic: string, payload: Buffer): Opened | null {
    const print = printOf(topic, payload)
    if (this.#byPacket.get(packet)?.print === print) return null
    const opened = new Opened(this, packet, print, ++this.#numbered)
    this.#put(opened)
    return opened
  }

  /** The message is no longer open. Returns the number that must be durable, and saved, before PUBCOMP. */
  release(packet: number): number {
    const opened = this.#byPacket.get(packet)
    this.#remove(packet)
    if (opened === undefined) return this.#numbered
    return opened.life === this.life ? opened.number : 0
  }

  /** All up to this number is durable, and what came before it. */
  isDurable(number: number): boolean {
    return this.#durable >= number && this.#inherited.size === 0
  }

  /** The record to save. Where nothing is kept, an error. */
  record(filters: SessionRecord['filters']): SessionRecord {
    if (this.before === null) throw new Error('No session is kept of this client.')
    if (this.#inherited.size > 0) return { ...this.before, filters }
    const open: OpenMessage[] = []
    for (const { packet, print, isDurable } of this.#byPacket.values()) if (isDurable) open.push({ packet, print })
    return { life: this.life, filters, opened: this.#durable, open }
  }

  /** True when this record, once durable, says that none of these is open, whatever marks the log has. */
  isReleasedBy({ life, opened, open }: SessionRecord, released: ReadonlyMap<number, number>): boolean {
    if (life !== this.life || open.some(({ packet }) => released.has(packet))) return false
    for (const number of released.values()) if (number > opened) return false
    return true
  }

  /** True when this record says all that this knows. */
  isWholeIn({ life, opened }: SessionRecord): boolean {
    if (this.#inherited.size > 0) return false
    return life === this.life ? opened === this.#numbered : this.#numbered === 0
  }

  settled(opened: Opened): void {
    if (opened.life === this.life) this.#durable = opened.number
    else this.#inherited.delete(opened)
    this.onDurable()
  }

  /** Nobody asks any more. */
  forget(): void {
    for (const packet of [...this.#byPacket.keys()]) this.#remove(packet)
  }

  #inherit({ record, marks, earlier }: Inheritance): void {
    for (const { packet, print } of record.open) this.#put(new Opened(this, packet, print, 0))
    for (const mark of marks) if (counts(mark, record)) this.#put(new Opened(this, mark.packet, mark.print, 0))
    if (earlier === null) return
    for (const opened of earlier.#byPacket.values()) if (opened.number > 0 && counts(opened, record)) this.#take(opened)
  }

  #take(opened: Opened): void {
    this.#put(opened)
    opened.owner = this
    if (!opened.isDurable) this.#inherited.add(opened)
  }

  #put(opened: Opened): void {
    this.#remove(opened.packet)
    while (this.size >= mostOf(this.#room)) this.#forgetOldest()
    if (this.#room.used >= this.#room.max && !this.#room.makeRoom() && !this.#forgetOldest()) return
    this.#byPacket.set(opened.packet, opened)
    this.#room.used++
  }

  /** False when none is left, so that the one at hand is forgotten itself. */
  #forgetOldest(): boolean {
    this.#room.forgot()
    const [oldest] = this.#byPacket.keys()
    if (oldest === undefined) return false
    this.#remove(oldest)
    return true
  }

  #remove(packet: number): void {
    if (this.#byPacket.delete(packet)) this.#room.used--
  }
}

/** The fuller the room, the fewer one session may have, so that some that release nothing leave room for all others. */
function mostOf({ used, max }: OpenRoom): number {
  if (used < max / 2) return OPEN_MESSAGES_MAX
  return used < (max * 3) / 4 ? OPEN_MESSAGES_MAX / 8 : OPEN_MESSAGES_MAX / 64
}

/** The message was opened, and not released, after the record was saved. */
function counts({ before, life, number }: Mark, record: SessionRecord): boolean {
  return before === record.life || (life === record.life && number > record.opened)
}

function printOf(topic: string, payload: Buffer): string {
  const hash = createHash('sha256').update(`${topic.length} ${topic}`).update(payload)
  return hash.digest('base64url').slice(0, PRINT_CHARS)
}
