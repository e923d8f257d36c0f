// The learner plays lesson 6 by the book.
import t from 'tap';
import { playLesson, skipLessons } from '../support/lesson.ts';

t.setTimeout(300_000);
t.test('lesson 6', { skip: skipLessons }, async t => playLesson(t, 6));
