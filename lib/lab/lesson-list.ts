/** All lessons, in their order. */
import type { Lesson } from './lesson.ts';
import { BATCHING, FORMATS, NAIVE_LOOP } from './lesson-moving.ts';
import { BLACK_HOLE, DUPLICATE_LEASE, FENCED, SPOOFED } from './lesson-trouble.ts';

export const LESSONS: readonly Lesson[] = [NAIVE_LOOP, BATCHING, BLACK_HOLE, DUPLICATE_LEASE, SPOOFED, FORMATS, FENCED];
