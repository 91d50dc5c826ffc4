//! Sending together what is ready together. A connection that is written as soon as one answer is there makes a system call for
//! each, and wakes the other end as often; one that first lets all the others run finds theirs too.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::Executor;

/// Work that, whenever it is woken, goes on after the tasks that are ready by then.
pub(super) struct Gathered<F> {
    work: F,
    has_waited: bool,
}

impl<F> Gathered<F> {
    pub(super) fn new(work: F) -> Self {
        Self { work, has_waited: false }
    }
}

impl<F: Future + Unpin> Future for Gathered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if mem::take(&mut self.has_waited) {
            return Pin::new(&mut self.work).poll(context);
        }
        self.has_waited = true;
        // Who wakes itself goes to the end of the queue.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs each connection of a client like that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathering;

impl Executor<Connection> for Gathering {
    fn execute(&self, connection: Connection) {
        tokio::spawn(Gathered::new(connection));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_is_ready_together_is_found_together() {
        let (answers, mut sent) = mpsc::unbounded_channel();
        let connection = tokio::spawn(Gathered::new(Box::pin(async move {
            let mut batch = Vec::new();
            sent.recv_many(&mut batch, 100).await;
            batch
        })));
        tokio::task::yield_now().await;
        answers.send(0).unwrap();
        // Woken by the first answer, the connection is in the queue before them.
        for number in 1..10 {
            let answers = answers.clone();
            tokio::spawn(async move { answers.send(number).unwrap() });
        }
        assert_eq!(connection.await.unwrap(), (0..10).collect::<Vec<_>>());
    }
}
