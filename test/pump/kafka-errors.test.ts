/** What Kafka answers, as errors of ours. */
import { createRequire } from 'node:module'
import { expect, it } from 'vitest'
import { kafkaErrorType, translateKafkaError } from '../../pump/kafka-errors.ts'

const require = createRequire(import.meta.url)
const createTopics = require('kafkajs/src/protocol/requests/createTopics/v3/response') as {
  parse(answer: { topicErrors: { topic: string; errorCode: number }[] }): Promise<unknown>
}

it.each([
  [29, 'TOPIC_AUTHORIZATION_FAILED', 'log_misconfigured'],
  [31, 'CLUSTER_AUTHORIZATION_FAILED', 'log_misconfigured'],
  [17, 'INVALID_TOPIC_EXCEPTION', 'log_misconfigured'],
  [44, 'POLICY_VIOLATION', 'log_misconfigured'],
  [7, 'REQUEST_TIMED_OUT', 'log_unavailable'],
])('of a topic that could not be made: %i is %s, %s', async (errorCode, type, code) => {
  const error = await createTopics
    .parse({ topicErrors: [{ topic: 'log', errorCode }] })
    .catch((thrown: unknown) => thrown)
  expect(kafkaErrorType(error)).toBe(type)
  expect(translateKafkaError(error, 'making topic log')).toMatchObject({ code })
})
