/** Requests whose bytes are ours, on the connections of kafkajs. */
import type { KafkaNode } from './kafka-client.ts'

export interface RequestKind {
  readonly apiKey: number
  readonly apiVersion: number
  readonly apiName: string
}

export interface ResponseCodec<Response> {
  decode(bytes: Buffer): Promise<unknown>
  /** Throws kafkajs' error when the answer is one. */
  parse(decoded: never): Promise<Response>
}

/** Sends what `encode` makes of the connection's turn, and resolves with the answer. Rejects with kafkajs' error. */
export async function sendRequest<Response>(
  node: KafkaNode,
  kind: RequestKind,
  encode: () => Buffer,
  response: ResponseCodec<Response>,
): Promise<Response> {
  try {
    const request = { ...kind, encode: async () => toEncoder(encode()) }
    return (await node.connectionPool.send({ request, response })) as Response
  } catch (error) {
    // As kafkajs does for its own requests: all of the node's connections are made anew.
    if (error instanceof Error && error.name === 'KafkaJSConnectionClosedError') await node.disconnect()
    throw error
  }
}

/** What kafkajs' Encoder takes for another Encoder. */
function toEncoder(buffer: Buffer): { buf: Buffer; buffer: Buffer; size(): number } {
  return { buf: buffer, buffer, size: () => buffer.length }
}
