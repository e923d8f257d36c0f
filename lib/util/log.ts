/**
 * What the rooms need of a logger; pino's loggers fit. The fields come first, as pino wants them, and the message is
 * a constant text, so that equal events are equal lines.
 */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

const nothing = (): void => {};

/** A logger that says nothing: for tests and for short-lived commands. */
export const silentLogger: Logger = { debug: nothing, info: nothing, warn: nothing, error: nothing };
