/**
 * The limits of what one device may send. On by default and not settings: a payload is the same reading everywhere.
 * Beyond a limit a message is quarantined with its reason, never cut short ([G3], [G5]); only of a topic that is too long, its
 * beginning is kept.
 */
export const LIMITS = {
  /** A whole MQTT packet after CONNACK; larger closes the connection. */
  packetBytesMax: 256 * 1024,
  /** A packet before CONNACK. */
  packetBytesMaxBeforeConnack: 8 * 1024,
  topicBytesMax: 512,
  topicLevelsMax: 16,
  /** Code points, of at most four bytes each. */
  deviceIdCharsMax: 128,
  clientIdBytesMax: 256,
  metricNameCharsMax: 128,
  /** UTF-8 bytes of a text value. */
  textBytesMax: 256,
  payloadDepthMax: 8,
  readingsPerMessageMax: 1000,
  metricsPerDeviceMax: 1000,
  /** Digits of an integer too large for a double. */
  integerDigitsMax: 64,
  /** A device time before this is no time of a reading but a broken clock: 2000-01-01. */
  tsMin: Date.UTC(2000, 0, 1),
} as const
