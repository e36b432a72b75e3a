#!/bin/sh
# Entry point of a real server of the lab: the VIP on lo, nginx that says who answers. ADDRESS is its own address.
set -eu
ip addr add 192.168.150.100/32 dev lo
cat >/etc/nginx/nginx.conf <<CONF
daemon off;
events {}
http {
    access_log off;
    keepalive_timeout 0;
    server {
        listen 80;
        default_type text/plain;
        return 200 "from $ADDRESS\n";
    }
}
CONF
exec nginx
