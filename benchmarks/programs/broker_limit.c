/*
 * What RabbitMQ itself can do: a client that costs almost nothing, on librabbitmq.
 *
 *   broker_limit publish URL QUEUE COUNT SIZE   COUNT persistent messages of SIZE bytes, each confirmed
 *   broker_limit consume URL QUEUE COUNT        COUNT messages that are there, acknowledged by the hundred
 *
 * Prints the seconds between the first message and the last confirm or ack. Ends with 1 and a sentence on failure.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <amqp.h>
#include <amqp_tcp_socket.h>

enum { CHANNEL = 1, FRAME_MAX = 131072, HEARTBEAT = 60, IN_FLIGHT = 1000, ACKED_AT_ONCE = 100, PERSISTENT = 2 };

static void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void check(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
        die(what, amqp_error_string2(reply.library_error));
    if (reply.reply_type != AMQP_RESPONSE_NORMAL)
        die(what, "the server refused");
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static amqp_connection_state_t connect_to(char *url)
{
    struct amqp_connection_info server;
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);

    if (amqp_parse_url(url, &server) != AMQP_STATUS_OK || server.ssl)
        die("URL", "is not amqp://user:password@host:port/vhost");
    if (amqp_socket_open(socket, server.host, server.port) != AMQP_STATUS_OK)
        die("connect", "nobody answers");
    /* In a URL of ours a path of "/" is the virtual host "/"; to librabbitmq it is one without a name. */
    check(amqp_login(connection, *server.vhost ? server.vhost : "/", 0, FRAME_MAX, HEARTBEAT, AMQP_SASL_METHOD_PLAIN,
                     server.user, server.password),
          "log in");
    amqp_channel_open(connection, CHANNEL);
    check(amqp_get_rpc_reply(connection), "open a channel");
    return connection;
}

static void declare(amqp_connection_state_t connection, amqp_bytes_t queue)
{
    const int passive = 0, durable = 1, exclusive = 0, auto_delete = 0;

    amqp_queue_declare(connection, CHANNEL, queue, passive, durable, exclusive, auto_delete, amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "declare the queue");
}

/* Read one frame; returns how many more messages it confirms. The server may confirm one by one, in any order, or all
 * up to a number; `first` is the first that is not confirmed yet. */
static long read_confirm(amqp_connection_state_t connection, char *confirmed, uint64_t *first)
{
    amqp_frame_t frame;
    amqp_basic_ack_t *ack;
    long more = 0;
    uint64_t tag;

    amqp_maybe_release_buffers(connection);
    if (amqp_simple_wait_frame(connection, &frame) != AMQP_STATUS_OK)
        die("wait for a confirm", "the connection is lost");
    if (frame.frame_type != AMQP_FRAME_METHOD)
        return 0;
    if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
        die("wait for a confirm", "the server refused");
    ack = frame.payload.method.decoded;
    for (tag = ack->multiple ? *first : ack->delivery_tag; tag <= ack->delivery_tag; tag++) {
        more += !confirmed[tag];
        confirmed[tag] = 1;
    }
    while (confirmed[*first])
        ++*first;
    return more;
}

static double publish(amqp_connection_state_t connection, amqp_bytes_t queue, long count, long size)
{
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG, .delivery_mode = PERSISTENT};
    amqp_bytes_t body = amqp_bytes_malloc(size);
    char *confirmed = calloc(count + 2, 1);
    long sent = 0, answered = 0;
    uint64_t first = 1;
    double began;

    if (!confirmed || !body.bytes)
        die("publish", "no memory");
    memset(body.bytes, 'x', size);
    amqp_confirm_select(connection, CHANNEL);
    check(amqp_get_rpc_reply(connection), "ask for confirms");
    began = now();
    while (answered < count) {
        for (; sent < count && sent - answered < IN_FLIGHT; sent++)
            if (amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, queue, 0, 0, &properties, body))
                die("publish", "the connection is lost");
        answered += read_confirm(connection, confirmed, &first);
    }
    return now() - began;
}

static double consume(amqp_connection_state_t connection, amqp_bytes_t queue, long count)
{
    const int no_local = 0, no_ack = 0, exclusive = 0, multiple = 1;
    double began = 0;
    long got;

    amqp_basic_qos(connection, CHANNEL, 0, IN_FLIGHT, 0);
    check(amqp_get_rpc_reply(connection), "set the prefetch");
    amqp_basic_consume(connection, CHANNEL, queue, amqp_empty_bytes, no_local, no_ack, exclusive, amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "consume");
    for (got = 1; got <= count; got++) {
        amqp_envelope_t envelope;

        amqp_maybe_release_buffers(connection);
        check(amqp_consume_message(connection, &envelope, NULL, 0), "wait for a message");
        if (got == 1)
            began = now();
        if (got % ACKED_AT_ONCE == 0 || got == count)
            if (amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag, multiple))
                die("acknowledge", "the connection is lost");
        amqp_destroy_envelope(&envelope);
    }
    /* The server answers this after the last ack, which has no answer of its own. */
    check(amqp_channel_close(connection, CHANNEL, AMQP_REPLY_SUCCESS), "close the channel");
    return now() - began;
}

int main(int count, char **arguments)
{
    int publishes = count == 6 && !strcmp(arguments[1], "publish");
    amqp_connection_state_t connection;
    amqp_bytes_t queue;
    long messages;

    if (!publishes && !(count == 5 && !strcmp(arguments[1], "consume")))
        die("usage", "broker_limit publish URL QUEUE COUNT SIZE | consume URL QUEUE COUNT");
    connection = connect_to(arguments[2]);
    queue = amqp_cstring_bytes(arguments[3]);
    messages = atol(arguments[4]);
    declare(connection, queue);
    printf("%f\n", publishes ? publish(connection, queue, messages, atol(arguments[5]))
                             : consume(connection, queue, messages));
    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(connection);
    return 0;
}
